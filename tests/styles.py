"""One endpoint, written for the event loop, for threads under ASGI, and for WSGI."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask, jsonify

from tests.durable import Durable, durable

STYLES = pytest.mark.parametrize("style", ["async", "blocking", "wsgi"])


def serving(
    style: str, on_loop: Callable[..., Any], in_thread: Callable[..., Any], **options: Any
) -> AbstractAsyncContextManager[Durable]:
    """`durable` with the handler of this style at `GET /`."""
    if style == "wsgi":
        flask = Flask("app")
        flask.config["PROPAGATE_EXCEPTIONS"] = True
        flask.get("/")(lambda: jsonify(in_thread()))
        return durable(lambda provider: provider.wsgi(flask), wsgi=True, **options)
    app = FastAPI()
    app.get("/", response_model=None)(on_loop if style == "async" else in_thread)
    return durable(lambda provider: provider.asgi(app), **options)


async def fails(world: Durable, error: type[Exception], match: str = "") -> None:
    """Call an endpoint that raises."""
    if not world.to_app.wsgi:
        with pytest.raises(error, match=match or None):
            await world.client.get("/")
        return
    answer = await world.client.get("/")  # `WSGITransport` answers with the traceback
    assert answer.status_code == 500
    assert f"{error.__name__}: " in answer.text
    assert match in answer.text
