"""Serves `result_path` under WSGI; `_run.result_path` decides what to answer."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from stephttp._adapters.wsgi.messages import (
    Environ,
    StartResponse,
    reply_with,
    status_line,
)
from stephttp._client.drivers import Streamed
from stephttp._run import result_path
from stephttp._run.asking import Outcome
from stephttp._run.result_path import Question
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Request, Response, text_headers
from stephttp.errors import APIConnectionError


def serve_result(
    runtime: Runtime, request: Request, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a request for the result of a run. It holds the thread until there is one, or for as
    long as that leaves a thread to the run; see `Holds`."""
    planned = result_path.plan(runtime, request)
    if isinstance(planned, Response):
        return _whole(start_response, planned, request)
    return _pass_on(runtime, planned, environ, start_response)


def _pass_on(
    runtime: Runtime, question: Question, environ: Environ, start_response: StartResponse
) -> Generator[bytes]:
    request, begun, pending = question.request, False, b""
    threaded = bool(environ.get("wsgi.multithread"))
    with runtime.holds.taken(runtime.settings.hold, threaded=threaded) as hold:
        asking = question.asking(runtime.checkpoints.keys, hold, runtime.monotonic, bounded=True)
        while True:
            unsure: Response | None = None
            try:
                with runtime.stream_sync(asking.call()) as streamed:
                    first = _first(streamed)
                    headers = dict(text_headers(streamed.headers))
                    outcome = asking.read(streamed.status, headers, first)
                    if outcome is Outcome.RESULT:
                        question.note(runtime, headers)
                        if question.follows and result_path.is_whole(headers):
                            body = first + b"".join(streamed.chunks)
                            answer = Response(streamed.status, streamed.headers, body)
                            yield from _whole(start_response, question.as_event(answer), request)
                            return
                        begun = True
                        start_response(
                            status_line(streamed.status),
                            text_headers(result_path.head(streamed.headers, request)),
                        )
                        if request.method != "HEAD":
                            yield first
                            yield from streamed.chunks
                        return
                    if outcome is Outcome.NOT_YET:
                        pending = first + b"".join(streamed.chunks)
                    if outcome is Outcome.UNSURE:
                        body = first + b"".join(streamed.chunks)
                        unsure = Response(streamed.status, streamed.headers, body)
            except APIConnectionError as error:
                if begun and (question.events or question.follows):
                    return  # the caller asks for the rest of them
                if begun:
                    raise  # the server ends the connection: the caller sees the body is not whole
                outcome = asking.failed(error)
            if unsure is not None:
                from stephttp._run.second_look import look

                keys, rng = runtime.checkpoints.keys, runtime.checkpoints.rng
                seen = runtime.drive_sync(look(question.run_id, unsure, keys, rng))
                if seen is not None:
                    yield from _whole(start_response, question.whole(seen), request)
                    return
                outcome = asking.failed()
            if isinstance(outcome, Outcome):
                break
            runtime.pause_sync(outcome.seconds)
    yield from _whole(start_response, question.not_yet(pending), request)


def _first(streamed: Streamed) -> bytes:
    """Read the first part of the body; empty if it has none."""
    for chunk in streamed.chunks:
        if chunk:
            found: bytes = chunk
            return found
    return b""


def _whole(start_response: StartResponse, response: Response, request: Request) -> list[bytes]:
    body = reply_with(start_response, response, [])
    return [] if request.method == "HEAD" else body
