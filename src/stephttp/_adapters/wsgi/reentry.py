"""A re-entry under WSGI: restores the first request, calls the application, and keeps its
response as the run's result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from functools import partial
from io import BytesIO
from itertools import takewhile
from typing import Any

from stephttp._adapters.wsgi.messages import (
    GONE,
    Environ,
    Input,
    StartResponse,
    Write,
    WSGIApp,
    close,
    drop,
    reply_with,
    response_of,
)
from stephttp._adapters.wsgi.request import BODY_HEADERS, identity, neutral
from stephttp._adapters.wsgi.scope import ThreadScope
from stephttp._core.run import Run
from stephttp._run.current import MARK, CurrentCall, enter, restore
from stephttp._run.hooks import as_flow, drive_blocking
from stephttp._run.reentry import Reentry
from stephttp._run.reentry_guard import body_of, own_headers
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Request, Response
from stephttp.middleware import CallEnd

logger = logging.getLogger("stephttp")

_OF_THE_CALLER = frozenset({*BODY_HEADERS, "REMOTE_ADDR", "REMOTE_PORT", "REMOTE_HOST"})


def reenter(
    app: WSGIApp, runtime: Runtime, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a call of the server: verify it, and continue the handler from where it stood."""
    request = neutral(environ, b"")
    body = body_of(runtime, request)
    if Input(environ, body).drain() is None:
        return reply_with(start_response, GONE, [])
    own = own_headers(runtime, request)
    reentry = Reentry(runtime, request, body)
    behind: Callable[[], object] | None = None
    try:
        opened = runtime.drive_sync(reentry.open())
        if isinstance(opened, Response):
            reply = opened
        else:
            try:
                error, behind = _run_handler(reentry, opened, app, environ)
            except BaseException as raised:
                if reentry.hooks is not None:
                    runtime.drive_sync(as_flow(reentry.hooks.over(CallEnd(None, raised, False))))
                raise
            reply = runtime.drive_sync(reentry.conclude(error))
            if error is not None:
                # Raising it would make the server drop the reply, and with it the result.
                logger.error(
                    "stephttp: the handler of run %s raised an exception", opened.run_id,
                    exc_info=error,
                )  # fmt: skip
    finally:
        reentry.close()
    sent = reply_with(start_response, reply, own)
    return sent if behind is None else _Reply(sent, behind)


class _Reply:
    """A reply behind which something is to be done.

    Args:
        chunks: its body.
        behind: is called when the server has sent it.
    """

    __slots__ = ("_behind", "_chunks")

    def __init__(self, chunks: list[bytes], behind: Callable[[], object]) -> None:
        self._chunks = chunks
        self._behind: Callable[[], object] | None = behind

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)

    def close(self) -> None:
        """Do what is left. The server has sent the reply."""
        behind, self._behind = self._behind, None
        if behind is not None:
            behind()


def _run_handler(
    reentry: Reentry, run: Run, app: WSGIApp, environ: Environ
) -> tuple[BaseException | None, Callable[[], object] | None]:
    """Run the handler, to the end of its response.

    Returns:
        What it raised; and what closes the response, if that is left for after the answer.
    """
    run_scope = ThreadScope(reentry.runtime, run, on_record=reentry.flush_soon)
    restored_environ = restored(environ, reentry.request)
    restored_environ[MARK] = run.run_id
    reentry.identity = identity(restored_environ)
    reentry.surroundings = restored_environ
    reentry.run_made(run_scope)
    current = CurrentCall(reentry, ThreadScope, None, run_scope)
    token = enter(current)
    error: BaseException | None = None
    behind: Callable[[], object] | None = None
    try:
        if run_scope.hooks is not None:
            drive_blocking(run_scope.hooks.open(), run_scope.wait_for)
        chunks = _call_application(reentry, run_scope, app, restored_environ)
        if getattr(chunks, "close", None) is not None:
            if reentry.is_answered(run_scope, current):
                behind = partial(_close, copy_context(), run.run_id, chunks)
            else:
                close(chunks)
    except BaseException as raised:
        error = raised
    finally:
        restore(token)
        current.leave()
    ended_by, error = error, None  # its traceback leads back here
    return run_scope.end(ended_by), behind


def _close(context: Context, run_id: str, chunks: Iterable[bytes]) -> None:
    """Close a response whose run has its result. A failure there changes nothing."""
    try:
        context.run(close, chunks)
    except Exception:
        logger.exception("stephttp: run %s: what follows its response raised an exception", run_id)


def _call_application(
    reentry: Reentry, scope: ThreadScope, app: WSGIApp, environ: Environ
) -> Iterable[bytes]:
    """Call the application, and keep its whole response. Returns it, to be closed."""
    body, run = reentry.body, scope.run
    started = False

    def write(data: bytes) -> None:
        if not run.suspended:
            body.add(data, True)

    def start_response_for_app(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Write:
        nonlocal started
        if run.suspended and scope.still_waits():
            return drop
        if exc_info is not None and body.size:
            raise exc_info[1].with_traceback(exc_info[2])
        if started and exc_info is None:
            raise AssertionError("start_response was called twice, without exc_info")
        started = True
        run.response_began()
        reentry.response = response_of(status, headers)
        return write

    chunks = app(environ, start_response_for_app)
    try:
        for chunk in takewhile(lambda _: not run.suspended, chunks):
            write(chunk)
    except BaseException:
        close(chunks)
        raise
    body.complete = True
    return chunks


def restored(environ: Environ, request: Request) -> Environ:
    """Return the environ of a re-entry as it was of the original request."""
    again = {
        key: value
        for key, value in environ.items()
        if not key.startswith("HTTP_") and key not in _OF_THE_CALLER
    }
    for raw_name, raw_value in request.headers:
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        key = name if name in BODY_HEADERS else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        glue = "; " if name == "COOKIE" else ","
        again[key] = f"{again[key]}{glue}{value}" if key in again else value
    again |= _address(environ, request.client)
    again["REQUEST_METHOD"] = request.method
    if request.seen_at is not None:
        again["SCRIPT_NAME"], again["PATH_INFO"] = request.seen_at.root_path, request.seen_at.path
    if request.body:
        again["CONTENT_LENGTH"] = str(len(request.body))
    again["wsgi.url_scheme"] = request.scheme
    again["wsgi.input"] = BytesIO(request.body)
    again["wsgi.input_terminated"] = True
    return again


def _address(environ: Environ, client: tuple[str, int] | None) -> Environ:
    """Return what an environ says of the original caller's address, in the form that its server
    gives: some give no port, and an empty address for a socket that is a file."""
    host, port = client or ("", 0)
    own = environ.get("REMOTE_PORT")
    given: Environ = {}
    if host or "REMOTE_ADDR" in environ:
        given["REMOTE_ADDR"] = host
    if port or (own is not None and host):
        given["REMOTE_PORT"] = port if isinstance(own, int) else str(port)
    if "REMOTE_HOST" in environ and environ["REMOTE_HOST"] == environ.get("REMOTE_ADDR"):
        given["REMOTE_HOST"] = host
    return given
