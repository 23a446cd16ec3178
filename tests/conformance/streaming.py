"""Endpoints of ours that the TypeScript SDK's streaming client follows, of FastAPI and of Flask.

`python -m tests.conformance.streaming` serves both, and says where.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import uvicorn
from fastapi import FastAPI, Response
from flask import Flask, jsonify

import stephttp
from stephttp import step, stream
from stephttp.sync import step as blocking_step
from stephttp.sync import stream as blocking

TOKENS = [f"t{number} " for number in range(20)]
MOMENT = timedelta(milliseconds=50)
tried: set[str] = set()

app = FastAPI()
flask = Flask("streaming")
provider = stephttp.setup(os.environ.get("APP_ORIGIN", "http://127.0.0.1"))


async def speak() -> AsyncIterator[str]:
    """What a model would."""
    for token in TOKENS:
        yield token


@app.get("/inline")
async def inline() -> Response:
    """Never waits."""
    stream.push("begin")
    await step.run("speak", lambda: stream.pipe(speak()))
    return Response("done", 201, {"x-mine": "yes"})


@app.get("/chat")
async def chat() -> dict[str, Any]:
    """Speaks before a wait and after it."""
    stream.push("begin")
    first = await step.run("speak", lambda: stream.pipe(speak()))
    await step.sleep("think", MOMENT)
    second = await step.run("speak-again", lambda: stream.pipe(speak()))
    stream.push("end")
    return {"texts": [first, second]}


@app.get("/retried")
async def retried(key: str) -> str:
    """Fails in the middle of what it says, in the first call and after a wait."""
    stephttp.configure(retries=2)

    async def say(name: str) -> str:
        for number in range(3):
            await stream.push(f"{name}{number}")
            if number == 1 and f"{key}{name}" not in tried:
                tried.add(f"{key}{name}")
                raise stephttp.RetryAfterError("interrupted", MOMENT)
        return name

    await step.run("a", say, "a")
    await step.sleep("think", MOMENT)
    await step.run("b", say, "b")
    return "said"


@app.get("/fails")
async def fails() -> None:
    """Fails after a wait."""
    stream.push("begin")
    await step.sleep("think", MOMENT)
    raise ValueError("too bad")


@flask.get("/chat")
def chat_in_threads() -> Any:
    """The same in threads."""

    def say() -> str:
        return "".join(blocking.pipe(iter_tokens()))

    blocking.push("begin")
    first = blocking_step.run("speak", say)
    blocking_step.sleep("think", MOMENT)
    second = blocking_step.run("speak-again", say)
    blocking.push("end")
    return jsonify(texts=[first, second])


def iter_tokens() -> Iterator[str]:
    """What a model would, blocking."""
    yield from TOKENS


class Silent(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: object) -> None: ...


async def main() -> None:
    """Serve both until the end of the process."""
    wsgi = make_server("127.0.0.1", 0, provider.wsgi(flask), handler_class=Silent)
    threading.Thread(target=wsgi.serve_forever, daemon=True).start()
    config = uvicorn.Config(provider.asgi(app), port=0, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for that
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    sys.stdout.write(
        f"listening on http://127.0.0.1:{port} and http://127.0.0.1:{wsgi.server_port}\n"
    )
    sys.stdout.flush()
    await serving


if __name__ == "__main__":
    asyncio.run(main())
