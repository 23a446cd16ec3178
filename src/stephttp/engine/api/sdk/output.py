"""`.../{run}/output?token=`: the answer of a run, for its caller (docs/protocol.md 7)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.tokens import gets_cookies, read_run_token
from stephttp.engine.rules.results import Rendered, render, without_cookies
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.requests import engine_of
from stephttp.engine.web.responses import CORS, json_response, refuse

_PREFLIGHT = {
    **CORS,
    "access-control-allow-methods": "GET, HEAD, POST, OPTIONS",
    "access-control-allow-headers": "*",
    "access-control-max-age": "3600",
}
_STILL_RUNNING = {"status": "running", "message": "run did not end within 5 minutes"}


async def output(request: Request) -> Response:
    """Wait for the end of a run, and answer with its result."""
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=_PREFLIGHT)
    engine = engine_of(request)
    token = request.query_params.get("token", "")
    run_id = read_run_token(token, engine.store.secret, int(engine.clock.now()))
    if run_id is None or run_id != request.path_params["run"].upper():
        return refuse(request, "Unable to find run with auth token", 401, CORS)

    end = engine.clock.monotonic() + engine.settings.output_timeout
    look = partial(_look, run_id=run_id)
    with engine.waiters.waiting(run_id) as ended:
        result = await engine.store.read(look)
        if result is None:
            with _until_disconnected(request, ended):
                await engine.clock.wait_for(end - engine.clock.monotonic(), ended)
            if engine.waiters.released:
                headers = {**CORS, "retry-after": "1"}
                return refuse(request, "the engine is stopping", 503, headers)
            result = await engine.store.read(look)
    if result is None:
        return json_response(_STILL_RUNNING, headers=CORS)
    if not gets_cookies(token, engine.store.secret):
        result = without_cookies(result)
    return _replay(result, without_body=request.method == "HEAD")


def _look(connection: sqlite3.Connection, run_id: str) -> Rendered | None:
    row = connection.execute(QUERIES["run_output"], (run_id,)).fetchone()
    if row is None:
        error = b'{"name":"NotFoundError","message":"the run is no longer stored"}'
        return render(RunStatus.FAILED, None, None, error)
    status = RunStatus(row[0])
    return render(status, *row[1:]) if status.ended else None


@contextmanager
def _until_disconnected(request: Request, stop: asyncio.Event) -> Generator[None]:
    """Set `stop` when the client goes away while the block runs."""
    watch = asyncio.create_task(_watch(request, stop))
    try:
        yield
    finally:
        watch.cancel()


async def _watch(request: Request, stop: asyncio.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    stop.set()


def _replay(result: Rendered, *, without_body: bool) -> Response:
    response = Response(b"" if without_body else result.body, result.status)
    # Set raw: names may repeat (cookies), and must not be merged with the framework's own.
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in result.headers
        if name.lower() not in CORS or name.lower() == "vary"
    ]
    headers.append((b"content-length", str(len(result.body)).encode()))
    headers.extend((name.encode(), value.encode()) for name, value in CORS.items())
    response.raw_headers = headers
    return response
