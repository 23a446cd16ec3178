"""Histories of runs of small handlers, made by a real engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flask
import httpx2
from fastapi import FastAPI

import stephttp
from stephttp.provider import Provider
from stephttp.testing.engine_history import history_of
from stephttp.testing.history import History
from tests.durable import Durable, durable

Handler = Callable[..., Any]
KEY = "ab" * 16
ACCEPT = {"x-stephttp-accept": "pending, step-names, ended"}


def serve(handler: Handler, path: str = "/orders", method: str = "GET") -> Callable[..., Any]:
    """An application of FastAPI for an async handler, or else one of Flask."""

    def build(provider: Provider) -> Any:
        if inspect.iscoroutinefunction(handler):
            api = FastAPI()
            api.api_route(path, methods=[method])(handler)
            return provider.asgi(api)
        app = flask.Flask("orders")
        app.add_url_rule(path, view_func=handler, methods=[method])
        return provider.wsgi(app)

    return build


def app_of(handler: Handler, method: str = "GET", **options: Any) -> Any:
    """An application as its module makes it."""
    return serve(handler, method=method)(stephttp.setup("http://app.test", **options))


async def history(world: Durable, first: httpx2.Response) -> History:
    """The history of the run of a response, as the engine has it now."""
    run_id = first.headers["x-run-id"]
    full = (await world.api.get(f"/v1/stephttp/runs/{run_id}")).json()["data"]
    state = await world.api.get(f"/v0/runs/{run_id}/actions", headers=ACCEPT)
    assert state.status_code == 200, state.text
    return history_of(full, state.content, "1.0")


async def recorded(
    handler: Handler, *, key: str = KEY, method: str = "GET", **request: Any
) -> tuple[History, History]:
    """The histories of one run of a handler: as it waits for the first time, and at its end."""
    is_wsgi = not inspect.iscoroutinefunction(handler)
    async with durable(serve(handler, method=method), key=key, wsgi=is_wsgi) as world:
        first = await world.client.request(method, "/orders", **request)
        waiting = await history(world, first)
        if first.status_code == 303:
            await world.follow(first)
        return waiting, await history(world, first)
