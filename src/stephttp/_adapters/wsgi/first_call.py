"""A request from outside, under WSGI. What the handler answers goes out as it comes.

A WSGI body is made after the call of the application has returned, piece by piece, by whoever
iterates over it; and an application that is a generator even begins then. So the run is the
current one during the call, during each step of the iteration, and while the body is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stephttp._adapters.routes import wsgi_route
from stephttp._adapters.wsgi.body import Input
from stephttp._adapters.wsgi.messages import (
    GONE,
    Environ,
    StartResponse,
    Write,
    WSGIApp,
    close,
    drop,
    neutral,
    reply_with,
    response_of,
    status_line,
    text_headers,
    text_marks,
)
from stephttp._adapters.wsgi.scope import ThreadScope
from stephttp._core.run import Run
from stephttp._run.current import current_call, enter, refuse_inside
from stephttp._run.first_call import LiveCall
from stephttp._run.hooks import drive_blocking
from stephttp._run.passing import MARK, Body, marks, own_error
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Request, Response
from stephttp.middleware import CallEnd

logger = logging.getLogger("stephttp")


class Live(LiveCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = ("_app", "_body", "_environ", "_given", "_input", "_scope", "_start_response")

    def __init__(
        self, app: WSGIApp, runtime: Runtime, environ: Environ, start_response: StartResponse
    ) -> None:
        super().__init__(runtime)
        self._app = app
        self._environ = environ
        self._start_response = start_response
        self._given: tuple[str, list[tuple[str, str]]] | None = None
        """What the application started its response with."""
        limit = runtime.settings.max_body_bytes
        self._body = Body(limit)
        self._input = Input(environ, self._body, limit)
        environ["wsgi.input"] = self._input
        self._scope = self._opened = self._make_scope()
        if runtime.settings.middleware:
            self._scope.use_middleware(self._request(b""))

    def respond(self) -> Iterable[bytes]:
        """Call the application, and see to what comes of it."""
        runtime, scope, environ = self.runtime, self._scope, self._environ
        if runtime.has_keys and not runtime.drive_sync(self._claim_at_once()):
            return self._reply(self._stored_answer or GONE)
        outer = current_call.get()
        if outer is not None and _mounts(outer.request, environ):
            refuse_inside(outer, scope)
        chunks: Iterable[bytes] | None = None
        error: BaseException | None = None
        environ[MARK] = self.run_id
        scope.request = (environ,)
        token = enter(scope)
        try:
            if scope.hooks is not None:
                drive_blocking(scope.hooks.open(), scope.wait_for)
            chunks = self._app(environ, self._start)
        except BaseException as raised:
            error = raised
        finally:
            current_call.reset(token)
            environ.pop(MARK, None)
        if error is None and chunks is not None and not self._run.suspended:
            return self._passed_on(chunks)
        if chunks is not None:
            error = self.current(lambda: close(chunks))
        reply = self.end(error)
        assert reply is not None, "the run waits, or `end` has raised"
        return self._reply(reply)

    def current(self, call: Callable[[], object]) -> BaseException | None:
        """Make a call as the current run. Returns what it raised."""
        token = current_call.set(self._scope)
        try:
            call()
        except BaseException as raised:
            return raised
        finally:
            current_call.reset(token)
        return None

    def next_of(self, iterator: Iterator[bytes]) -> bytes:
        """The next piece of the body, made as the current run."""
        token = current_call.set(self._scope)
        try:
            return next(iterator)
        finally:
            current_call.reset(token)

    @property
    def overtaken(self) -> bool:
        """Whether the reply is not the application's own."""
        return self._run.suspended

    def note(self, chunk: bytes, more: bool) -> None:
        """A piece of the body passes by."""
        if self._answer is not None:
            self._answer.add(chunk, more)

    def end(self, error: BaseException | None) -> Response | None:
        """The handler has ended, with or without `error`.

        Returns:
            The reply, where it is not the handler's own.

        Raises:
            BaseException: `error`, if it is the application's own.
        """
        run, scope, runtime = self._run, self._scope, self.runtime
        scope.close(error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            run.end()
            if self._journal is not None:
                self._journal.abandon()
            self._given_up(error)
            raise error
        if run.suspended:
            runtime.drive_sync(scope.quiet())
        error = own_error(scope, error)
        if run.suspended and self._stored_answer is None and not self._drained():
            self._given_up(None)
            return GONE
        if self._given is not None and (run.used or self._journal or scope.hooks):
            response = response_of(*self._given)
            self._status, self._headers = response.status, response.headers
        flow = self._conclude(error)
        reply = None if flow is None else runtime.drive_sync(flow)
        if error is not None:
            raise error
        return reply

    def _given_up(self, error: BaseException | None) -> None:
        hooks = self._scope.hooks
        if hooks is not None:
            drive_blocking(hooks.over(CallEnd(None, error, False)), self._scope.wait_for)

    def _reply(self, reply: Response) -> list[bytes]:
        return reply_with(self._start_response, reply, marks(self._answers_as))

    def _passed_on(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """The body, for the server: as it is where nothing more can come of it."""
        whole = type(chunks) in (list, tuple)
        if self._given is not None and not self._run.used and self._journal is None:
            wrapper = self._environ.get("wsgi.file_wrapper")
            if whole or (isinstance(wrapper, type) and isinstance(chunks, wrapper)):
                self.end(None)
                return chunks
        return SizedChunks(self, chunks) if whole else Chunks(self, chunks)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Write:
        """`start_response`, as the application sees it."""
        run = self._run
        with self._scope._lock:
            if run.suspended:
                return drop
            run.response_began()
        hooks = self._scope.hooks
        if hooks is not None:
            head = response_of(status, headers)
            drive_blocking(hooks.before_response(head), self._scope.wait_for)
            status = status if head.status == int(status[:3]) else status_line(head.status)
            headers = text_headers(head.headers)
        own = [*headers, *text_marks(self.run_id)]
        if exc_info is None:
            write = self._start_response(status, own)
        else:
            write = self._start_response(status, own, exc_info)
        self._given = status, headers
        self._keep_answer()
        if self._answer is None:
            return write

        def noting(data: bytes) -> None:
            self.note(data, True)
            write(data)

        return noting

    def _method(self) -> str:
        method: str = self._environ["REQUEST_METHOD"]
        return method

    def _new_scope(self, run: Run) -> ThreadScope:
        return ThreadScope(self.runtime, run)

    @property
    def _asked(self) -> Body:
        return self._body

    def _request(self, body: bytes) -> Request:
        return neutral(self._environ, body)

    def _route(self) -> str:
        return wsgi_route(self._app, self._environ)

    def _has_all(self) -> bool:
        return self._asked.complete

    def _read_ahead(self, _: Any = None) -> bool:
        return self._input.read_ahead()

    def _give_up(self) -> BaseException:
        return ConnectionError("the caller left before its request was complete")

    def _drained(self) -> bool:
        if self._input.drain() is not None:
            return True
        logger.info("stephttp: run %s: the caller left before its request was complete",
                    self.run_id)  # fmt: skip
        return False


class Chunks:
    """The body of a response that goes on while a server iterates over it."""

    __slots__ = ("_chunks", "_closed", "_ended", "_iterator", "_live", "_reply")

    def __init__(self, live: Live, chunks: Iterable[bytes]) -> None:
        self._live = live
        self._chunks = chunks
        self._iterator: Iterator[bytes] | None = None
        self._reply: Iterator[bytes] | None = None
        self._ended = self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._reply is not None:
            return next(self._reply)
        live = self._live
        if self._iterator is None:
            self._iterator = iter(self._chunks)
        try:
            chunk = live.next_of(self._iterator)
        except StopIteration:
            if not live.overtaken:
                live.note(b"", False)
                raise
            return self._overtaken(None)
        except BaseException as raised:
            if live.overtaken:
                return self._overtaken(raised)
            self._end(raised)
            raise
        if live.overtaken:
            return self._overtaken(None)
        live.note(chunk, True)
        return chunk

    def close(self) -> None:
        """The server is done with the response, or gives it up."""
        if self._ended and self._closed:
            return
        raised = self._close_inner()
        if raised is not None and self._ended:
            raise raised
        self._end(raised)

    def _overtaken(self, error: BaseException | None) -> bytes:
        """The run waits: the reply takes the place of what the application would have sent."""
        error = self._close_inner() or error
        self._ended = True
        reply = self._live.end(error)
        assert reply is not None, "the run waits"
        self._reply = iter(self._live._reply(reply))
        return next(self._reply)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self._live.end(error)

    def _close_inner(self) -> BaseException | None:
        """Close what the application returned, once. Returns what that raised."""
        if self._closed:
            return None
        self._closed = True
        return self._live.current(lambda: close(self._chunks))


class SizedChunks(Chunks):
    """A body that is there as a whole: servers ask how many pieces, to tell its length."""

    __slots__ = ()
    _chunks: list[bytes] | tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self._chunks)


def _mounts(outer: tuple[Any, ...], environ: Environ) -> bool:
    """Whether `outer` is the request of an ASGI application in which this one is mounted."""
    if len(outer) != 4:
        return False
    method, path, query, _ = outer
    inner = environ.get("PATH_INFO", "").encode("latin-1").decode(errors="replace")
    same = (environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "").encode("latin-1"))
    return same == (method, query or b"") and str(path).endswith(inner)
