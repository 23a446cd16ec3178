"""The output URL (`.../{run}/output`, with a token), where callers wait for the answer of a
run (docs/protocol.md 7).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire import http
from stephttp._wire.http import Prefer, navigates, read_prefer, wants_events
from stephttp._wire.progress import Progress
from stephttp._wire.result_address import (
    ASKS,
    FINAL,
    FOLLOWED,
    GONE,
    MARK,
    PENDING,
    PROGRESS,
    REFUSED,
    STOPPING,
    not_ended,
    page_hold,
    shown,
)
from stephttp._wire.signatures import bearer_of
from stephttp.engine.api.sdk.followed_result import follow_result
from stephttp.engine.api.sdk.streaming import follow_run, wants_stream
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.sdk_links import read_sdk_link
from stephttp.engine.model.tokens import RunToken, read_run_token
from stephttp.engine.reading.progress import progress
from stephttp.engine.rules.answers import is_ours
from stephttp.engine.rules.results import Rendered, render, without_cookies
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.store.store import StoreClosedError
from stephttp.engine.web.requests import engine_of
from stephttp.engine.web.responses import CORS, json_response, refuse

_PREFLIGHT = {
    **CORS,
    "access-control-allow-methods": "GET, HEAD, POST, OPTIONS",
    "access-control-allow-headers": "*, authorization",
    "access-control-max-age": "3600",
}
_GONE = {**CORS, MARK: GONE}
_REFUSED = {**CORS, MARK: REFUSED}
_STREAM = {**CORS, "cache-control": "no-cache", "x-accel-buffering": "no"}
_STILL_RUNNING = {"status": "running", "message": "run did not end within 5 minutes"}


class _StoredRun(NamedTuple):
    """What the store says of a run: whether it is one of our SDK, and its answer, once it ended."""

    is_ours: bool
    answer: Rendered | None


async def output(request: Request) -> Response:
    """Wait for the end of a run, and answer with its result.

    A caller of a run of our SDK is held for a while, and then redirected to here again; for other
    SDKs' runs the answers are those of the protocol (docs/protocol.md 7).
    """
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=_PREFLIGHT)
    engine = engine_of(request)
    link = _link_of(request)
    if link is None:
        return refuse(request, "Unable to find run with auth token", 401, _REFUSED)
    if link.expired:
        lifetime = engine.settings.link_lifetime
        message = f"the link to this result is over: it was good for {lifetime:g} s"
        return refuse(request, message, 410, _GONE)
    if wants_stream(request):
        return follow_run(engine, link.run_id, request, _STREAM)
    prefer = read_prefer(request.headers.raw)
    asked = http.Request(request.method, "", "", request.headers.raw)
    if wants_events(asked):
        headers = {**CORS, "x-accel-buffering": "no", MARK: FOLLOWED}
        return follow_result(engine, link, request, headers, prefer.wait)
    as_page = navigates(asked)
    with engine.waiters.waiting(link.run_id) as ended:
        found = await _held(request, link, prefer, ended, as_page=as_page)
    if found is None:
        message = "the run is no longer stored, and so is its result"
        return refuse(request, message, 410, _GONE)
    if found.answer is not None:
        answer = found.answer if link.cookies else without_cookies(found.answer)
        return _replay(answer, without_body=request.method == "HEAD")
    if found.is_ours:
        return await _ask_again(request, link.run_id, prefer, as_page=as_page)
    if engine.waiters.released:
        soon = {**CORS, "retry-after": "1"}
        return refuse(request, "the engine is stopping", 503, soon)
    return json_response(_STILL_RUNNING, headers=CORS)


def _link_of(request: Request) -> RunToken | None:
    """Return what the token of a request says, if it is one for the run in the path."""
    engine = engine_of(request)
    token = request.query_params.get("token") or bearer_of(request.headers.get("authorization", ""))
    now_s, lifetime = int(engine.clock.now()), engine.settings.link_lifetime
    run_id, keys = request.path_params["run"].upper(), engine.settings.signing_keys
    link = read_run_token(token, engine.store.secret, now_s, lifetime)
    link = link or read_sdk_link(token, run_id, keys, now_s, lifetime)
    return link if link is not None and link.run_id == run_id else None


async def _ask_again(request: Request, run_id: str, prefer: Prefer, *, as_page: bool) -> Response:
    """Answer that a run has not ended, and say where and when to come again."""
    engine = engine_of(request)
    path, query = request.url.path, request.url.query
    mark = STOPPING if engine.waiters.released else PENDING
    reports = as_page or request.headers.get(ASKS) == PROGRESS
    look = partial(progress, run_id=run_id)
    far = await engine.store.read(look) if reports and mark == PENDING else None
    if as_page:
        status, own, body = shown(run_id, path, query, far or Progress())
    else:
        status, own, body = not_ended(run_id, path, query, prefer, mark, far)
    response = Response(b"" if request.method == "HEAD" else body, status, CORS)
    response.raw_headers += own
    return response


async def _held(
    request: Request, link: RunToken, prefer: Prefer, ended: asyncio.Event, *, as_page: bool
) -> _StoredRun | None:
    """Return what is stored of a run once it has ended, or its caller was held for long enough;
    `None`: it is not stored any more."""
    engine = engine_of(request)
    clock, settings = engine.clock, engine.settings
    began = clock.monotonic()
    look = partial(_look, link=link)
    found = await engine.store.read(look)
    if found is None or found.answer is not None:
        return found
    hold = settings.output_timeout
    if found.is_ours:
        hold = settings.hold if prefer.wait is None else prefer.wait
        hold = page_hold(request.url.query, hold) if as_page else hold
    with _until_disconnected(request, ended):
        await clock.wait_for(began + hold - clock.monotonic(), ended)
    try:
        return await engine.store.read(look)
    except StoreClosedError:  # the engine has stopped
        return found


def _look(connection: sqlite3.Connection, link: RunToken) -> _StoredRun | None:
    row = connection.execute(QUERIES["run_output"], (link.run_id,)).fetchone()
    if row is None:
        return _StoredRun(True, None) if link.early else None
    status = RunStatus(row[0])
    answer = render(status, *row[1:4]) if status.ended else None
    return _StoredRun(is_ours(row[4]), answer)


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
        if (name.lower() not in CORS or name.lower() == "vary") and name.lower() != MARK
    ]
    headers.append((MARK.encode(), FINAL.encode()))
    headers.append((b"content-length", str(len(result.body)).encode()))
    headers.extend((name.encode(), value.encode()) for name, value in CORS.items())
    response.raw_headers = headers
    return response
