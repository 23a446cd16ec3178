"""Serves `result_path` under WSGI; `_run.result_path` decides what to answer."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from stephttp._adapters.wsgi.messages import StartResponse, reply_with, status_line, text_headers
from stephttp._client.drivers import Streamed
from stephttp._client.flow import Call
from stephttp._run import result_path
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Request, Response
from stephttp.errors import APIConnectionError, APITimeoutError


def serve_result(
    runtime: Runtime, request: Request, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a request for the result of a run. It holds the thread until there is one."""
    planned = result_path.plan(request)
    if isinstance(planned, Response):
        return _whole(start_response, planned, request)
    return _pass_on(runtime, request, planned, start_response)


def _pass_on(
    runtime: Runtime, request: Request, call: Call, start_response: StartResponse
) -> Generator[bytes]:
    path = runtime.settings.result_path
    begun = False
    try:
        with runtime.stream_sync(call) as streamed:
            first = _peek(streamed)
            if result_path.still_running(streamed.status, first):
                yield from _whole(start_response, result_path.not_yet(request, path), request)
                return
            if not result_path.of_the_server(runtime.checkpoints.keys, streamed, first):
                yield from _whole(start_response, result_path.unreachable(request), request)
                return
            begun = True
            headers = result_path.head(streamed.headers, request)
            start_response(status_line(streamed.status), text_headers(headers))
            if request.method != "HEAD":
                yield first
                yield from streamed.chunks
    except APIConnectionError as error:
        if begun:
            raise  # the server ends the connection: the caller sees that the body is not whole
        late = isinstance(error, APITimeoutError)
        reply = result_path.not_yet(request, path) if late else result_path.unreachable(request)
        yield from _whole(start_response, reply, request)


def _peek(streamed: Streamed) -> bytes:
    """Read the beginning of the body; all of it where that is shorter."""
    first = b""
    for chunk in streamed.chunks:
        first += chunk
        if len(first) >= result_path.PEEKED:
            break
    return first


def _whole(start_response: StartResponse, response: Response, request: Request) -> list[bytes]:
    body = reply_with(start_response, response, [])
    return [] if request.method == "HEAD" else body
