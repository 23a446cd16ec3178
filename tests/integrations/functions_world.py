"""An application with one function of PyPI `inngest`, served by FastAPI or Flask, and a real engine
in the same process, on a virtual clock."""

from __future__ import annotations

import json
import warnings
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from fastapi import FastAPI
from flask import Flask

from stephttp import Provider
from tests.durable import APP, Durable, durable

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest
    import inngest.fast_api
    import inngest.flask

    from stephttp.integrations.inngest import StepMiddleware

STYLES = ("async", "blocking")
_URL = f"{APP}/api/inngest"


class FunctionWorld:
    """The application and its engine.

    Args:
        durable: both.
    """

    def __init__(self, durable: Durable) -> None:
        self.durable = durable
        self.answers: list[httpx2.Response] = []
        """Of the application, to the engine."""
        handle = durable.to_app.handle_async_request

        async def kept(request: httpx2.Request) -> httpx2.Response:
            answer = await handle(request)
            self.answers.append(answer)
            return answer

        durable.to_app.handle_async_request = kept  # type: ignore[method-assign]

    async def register(self, *functions: inngest.Function[Any]) -> None:
        """Make the engine know the functions."""
        configured = [one.get_config(_URL).main.to_dict() for one in functions]
        body = {"appname": "shop", "url": _URL, "sdk": "py:v0.5.19", "functions": configured}
        answer = await self.durable.api.post("/fn/register", json=body)
        assert answer.status_code == 200, answer.text

    async def send(self, name: str, **data: Any) -> str:
        """Send an event, and return its id."""
        answer = await self.durable.api.post("/e/key", json={"name": name, "data": data})
        (event_id,) = answer.json()["ids"]
        await self.durable.engine.idle()
        return str(event_id)

    async def runs(self, event_id: str) -> list[dict[str, Any]]:
        """Return the runs that an event has started."""
        answer = await self.durable.api.get(f"/v1/events/{event_id}/runs")
        ids = [run["run_id"] for run in answer.json()["data"]]
        return [(await self.durable.api.get(f"/v1/runs/{id_}")).json()["data"] for id_ in ids]

    async def outcome(self, event_id: str) -> dict[str, Any]:
        """Return the one run that an event has started, turning the clock until it has ended."""
        for _ in range(100):
            await self.durable.engine.idle()
            (run,) = await self.runs(event_id)
            if run["ended_at"]:
                return run
            await self.durable.turn()
        raise AssertionError("the run does not end")

    async def result(self, **data: Any) -> Any:
        """Start the function, and return what it returns."""
        run = await self.outcome(await self.send("shop/go", **data))
        assert run["status"] == "Completed", output(run)
        return output(run)

    async def failure(self, **data: Any) -> dict[str, Any]:
        """Start the function, and return the error that it ends with."""
        run = await self.outcome(await self.send("shop/go", **data))
        assert run["status"] == "Failed", output(run)
        error: dict[str, Any] = run["error"]
        return error

    async def steps(self, run_id: str) -> list[tuple[str, str, int]]:
        """Return name, status and attempts of the steps of a run."""
        answer = await self.durable.api.get(f"/v1/runs/{run_id}/steps")
        return [(one["name"], one["status"], one["attempts"]) for one in answer.json()["data"]]


def output(run: dict[str, Any]) -> Any:
    return json.loads(b64decode(run["output"]))


@asynccontextmanager
async def serving(
    style: str,
    on_loop: Callable[[inngest.Context], Any],
    in_thread: Callable[[inngest.ContextSync], Any],
    *,
    retries: int = 0,
    events_url: str | None = None,
    middleware: tuple[Any, ...] = (StepMiddleware,),
    others: Callable[[inngest.Inngest], list[inngest.Function[Any]]] = lambda _: [],
    routes: Callable[[Any], None] = lambda _: None,
    gateway: httpx2.AsyncBaseTransport | None = None,
) -> AsyncGenerator[FunctionWorld]:
    """Serve a function `shop-go`, which the event `shop/go` starts.

    Args:
        style: `async` or `blocking`: which of the next two it is.
        on_loop: the function, for FastAPI.
        in_thread: the function, for Flask.
        retries: of the function.
        events_url: where its client sends events.
        middleware: of its client.
        others: makes further functions.
        routes: adds routes to the application.
        gateway: carries the HTTP requests that the engine makes for steps.
    """
    client = inngest.Inngest(
        app_id="shop",
        is_production=False,
        event_api_base_url=events_url,
        middleware=[*middleware],
    )
    trigger = inngest.TriggerEvent(event="shop/go")
    made = client.create_function(fn_id="go", trigger=trigger, retries=retries)
    functions = [made(on_loop if style == "async" else in_thread), *others(client)]

    def build(provider: Provider) -> Any:
        if style == "async":
            app = FastAPI()
            routes(app)
            inngest.fast_api.serve(app, client, functions)
            return provider.asgi(app)
        flask = Flask("shop")
        flask.config["PROPAGATE_EXCEPTIONS"] = True
        routes(flask)
        inngest.flask.serve(flask, client, functions)
        flask.wsgi_app = provider.wsgi(flask.wsgi_app)  # type: ignore[method-assign]
        return flask

    async with durable(build, wsgi=style == "blocking", gateway=gateway) as world:
        functions_world = FunctionWorld(world)
        await functions_world.register(*functions)
        yield functions_world
