"""A request from outside, under WSGI. What the handler answers goes out as it comes.

A WSGI body is made after the call of the application has returned, piece by piece, while the
server iterates over it; an application that is a generator even begins then. So the call is the
current one while the application is called, during each step of the iteration, and while the body
is closed; see `chunks`. All of that is done in a context of its own: what an instrumentation, or an
application that a wait has ended, leaves behind there does not reach the thread's next request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from stephttp._adapters.wsgi.chunks import Chunks, Rest, SizedChunks
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
    status_line,
    text_run_headers,
)
from stephttp._adapters.wsgi.request import identity, known_of_caller, mounts, neutral, route_of
from stephttp._adapters.wsgi.scope import ThreadScope
from stephttp._run.current import (
    MARK,
    CurrentCall,
    current_call,
    enter,
    refuse_inside,
    run_headers,
)
from stephttp._run.first_call import FirstCall
from stephttp._run.hooks import Hooks, drive_blocking
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.http import Body, Request, Response, text_headers
from stephttp.middleware import CallEnd

if TYPE_CHECKING:
    from stephttp._adapters.wsgi.event_answer import EventAnswer

logger = logging.getLogger("stephttp")


class WSGIFirstCall(FirstCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = (
        "_app",
        "_collects",
        "_environ",
        "_events",
        "_input",
        "_sent",
        "_start",
        "_start_response",
        "_written",
        "context",
    )

    def __init__(
        self, app: WSGIApp, runtime: Runtime, environ: Environ, start_response: StartResponse
    ) -> None:
        super().__init__(runtime)
        self._app = app
        self._environ = environ
        self._sent = environ.copy()
        self._start_response = start_response
        self.context = copy_context()
        """The context in which all of this call happens."""
        self._start: tuple[str, list[tuple[str, str]]] | None = None
        """What the application started its response with."""
        self._written: list[bytes] = []
        """What the application has sent, as long as that is held back."""
        self._collects = True
        """Whether the answer of a run with an idempotency key can still be held back."""
        self._input = Input(environ, Body(runtime.settings.max_body_bytes))
        self.current = CurrentCall(self, ThreadScope, None)

    def respond(self, run_at_once: bool) -> Iterable[bytes]:
        """Call the application, and see to what comes of it.

        Args:
            run_at_once: whether the request has a run before that; see `Runtime`.
        """
        if run_at_once and not self._prepare():
            return self.reply(self._stored_answer or GONE)
        environ, token = self._environ, None
        environ["wsgi.input"] = self._input
        chunks: Iterable[bytes] | None = None
        error: BaseException | None = None
        try:
            outer = current_call.get()
            if outer is not None and mounts(outer.identity, environ):
                refuse_inside(outer, self.current)
            token = enter(self.current)
            environ[MARK] = self.run_id
            if run_at_once and (hooks := self.current.scope().hooks) is not None:
                drive_blocking(hooks.open(), self.current.scope().wait_for)
            chunks = self._app(environ, self._start_response_for_app)
        except BaseException as raised:
            error = raised
        finally:
            if token is not None:
                current_call.reset(token)
                environ.pop(MARK, None)
        if error is None and chunks is not None and not self.current.suspended:
            return self._passed_on(chunks)
        if chunks is not None:
            error = self.in_context(lambda: close(chunks))
        if self._events_so_far is not None:
            return self._end_of_events(error)
        reply = self.end(error)
        error = None  # its traceback leads back here, and what it holds belongs to this context
        assert reply is not None, "the run waits, or `end` has raised"
        return self.reply(reply)

    def run_made(self, scope: RunScope) -> None:
        """Prepare a run that was just made; see `HandlerCall`."""
        super().run_made(scope)
        self._events: EventAnswer | None = None
        """The answer to a caller who gets events."""

    def _has_begun(self) -> bool:
        return self._start is not None

    def _begin_events(self, scope: RunScope) -> EventAnswer:
        """Make events the answer of this call, and what the handler answers their end."""
        from stephttp._adapters.wsgi.event_answer import EventAnswer

        self._events = EventAnswer(self._start_response, run_headers(self.run_id))
        return self._events

    @property
    def _events_so_far(self) -> EventAnswer | None:
        return None if self.current.so_far is None else self._events

    def _end_of_events(self, error: BaseException | None) -> list[bytes]:
        """Conclude the call of an application that has ended, where events are the answer."""
        assert self._events is not None
        reply = None
        try:
            reply = self.end(error)
        except Exception as raised:  # raising it would make the server drop the end
            error = raised
            self.log_hidden(error)
        return self._events.finish(self._last_of_events(reply, error))

    def in_context(self, call: Callable[[], object]) -> BaseException | None:
        """Make a call in the context of the handler. Returns what it raised."""
        token = current_call.set(self.current)
        try:
            call()
        except BaseException as raised:
            return raised
        finally:
            current_call.reset(token)
        return None

    def next_of(self, iterator: Iterator[bytes]) -> bytes:
        """Return the next piece of the body, made in the context of the handler."""
        token = current_call.set(self.current)
        try:
            return next(iterator)
        finally:
            current_call.reset(token)

    @property
    def delivers_first(self) -> bool:
        """Whether the run is to be delivered before its response ends."""
        return not self.runtime.settings.background

    def keep(self, chunk: bytes, more: bool) -> None:
        """Keep a piece of the body that passes by, if others may ask for it."""
        if self._answer is not None:
            self._answer.add(chunk, more)
            if not more and self._start is not None:
                self._status = int(self._start[0][:3])
                self._note_end_of_answer()

    def reply(self, reply: Response) -> list[bytes]:
        """Send a response of the SDK instead of the handler's."""
        return reply_with(self._start_response, reply, run_headers(self._answered_run))

    def _prepare(self) -> bool:
        """Do what is configured to be done before the application is called.

        Returns:
            Whether it is to be called.
        """
        runtime, scope = self.runtime, self.current.scope()
        if runtime.settings.middleware:
            scope.hooks = Hooks.of(scope, self._request(b""))
        return not runtime.has_keys or runtime.drive_sync(self._claim_at_once())

    def end(self, error: BaseException | None) -> Response | None:
        """Conclude the call of an application that has ended, with or without `error`.

        Returns:
            The reply, where it is not the handler's own.

        Raises:
            BaseException: `error`, if it is the application's own.
        """
        scope, reply = self.current.leave(), None
        if scope is not None:
            error, reply = self._end(scope, error)
        if error is not None:
            raise error
        return reply

    def _end(
        self, scope: RunScope, error: BaseException | None
    ) -> tuple[BaseException | None, Response | None]:
        """Conclude the run of an application that has ended, with or without `error`.

        Returns:
            What is to be raised, and the reply, where it is not the handler's own.
        """
        assert isinstance(scope, ThreadScope), "made by `current`"
        try:
            error = scope.end(error)
        except BaseException as raised:
            self._give_up(scope, raised)
            raise
        if scope.run.suspended and self._stored_answer is None and not self._drain():
            self._give_up(scope, None)
            return None, GONE
        if self._start is not None and (
            scope.run.used or self._journal or scope.hooks or self._events
        ):
            response = response_of(*self._start)
            self._status, self._headers = response.status, response.headers
        flow = self._conclude(scope, error)
        reply = None if flow is None else self.runtime.drive_sync(flow)
        if reply is not None and error is not None:
            self.log_hidden(error)
            error = None
        return error, reply

    def _give_up(self, scope: RunScope, error: BaseException | None) -> None:
        """Leave the run as it is, and tell the middleware that this call has no result."""
        if self._journal is not None:
            self._journal.abandon()
        scope.stream = None  # it leads back to the scope
        if scope.hooks is not None:
            drive_blocking(scope.hooks.over(CallEnd(None, error, False)), scope.wait_for)

    def _room(self, seconds: float) -> AbstractContextManager[float]:
        """See `FirstCall`; this thread is held meanwhile."""
        threaded = bool(self._environ.get("wsgi.multithread"))
        return self.runtime.holds.taken(seconds, threaded=threaded)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells the request from others; see `HandlerCall`."""
        return identity(self._environ)

    @property
    def surroundings(self) -> Environ:
        """The environ; see `HandlerCall`."""
        return self._environ

    def _method(self) -> str:
        method: str = self._sent["REQUEST_METHOD"]
        return method

    def _request(self, body: bytes) -> Request:
        return neutral(self._sent, body)

    def _known_of_caller(self) -> str:
        return known_of_caller(self._sent)

    def _route(self) -> str:
        return route_of(self._app, self._environ, self._sent)

    @property
    def _request_body(self) -> Body:
        return self._input.body

    def _has_all(self) -> bool:
        return self._input.body.complete

    def _announced(self) -> int | None:
        return self._input.length

    def _read_ahead(self, _: Any = None) -> bool:
        return self._input.read_ahead()

    def _caller_left(self) -> BaseException:
        return ConnectionError("the caller left before its request was complete")

    def _drain(self) -> bool:
        """Read what the application left of the body; False if the caller left."""
        if self._input.drain() is not None:
            return True
        logger.info("stephttp: run %s: the caller left before its request was complete",
                    self.run_id)  # fmt: skip
        return False

    def _start_response_for_app(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Write:
        """`start_response`, as the application sees it."""
        scope = self.current.begin_response()
        if scope is not None:
            assert isinstance(scope, ThreadScope), "made by `current`"
            if scope.run.suspended and scope.still_waits():
                return drop
            if not self._keyed and scope.leaves_end():
                return drop
            with scope.lock:
                if scope.run.suspended:
                    return drop
                scope.run.response_began()
            if scope.hooks is not None:
                head = response_of(status, headers)
                drive_blocking(scope.hooks.before_response(head), scope.wait_for)
                status = status if head.status == int(status[:3]) else status_line(head.status)
                headers = text_headers(head.headers)
        own = [*headers, *text_run_headers(self.run_id)]
        if scope is not None and (self._keyed or self._events is not None) and self._collects:
            self._written = []
            write: Write = self._written.append
        elif exc_info is None:
            write = self._start_response(status, own)
        else:
            write = self._start_response(status, own, exc_info)
        self._start = status, headers
        if scope is not None:
            self._keep_answer()
        if self._answer is None:
            return write

        def write_and_keep(data: bytes) -> None:
            self.keep(data, True)
            write(data)

        return write_and_keep

    def _passed_on(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body for the server: as it is, where no step can come of it any more."""
        if self._keyed_so_far or self._events_so_far is not None:
            return self._collected(chunks)
        self._collects = False
        whole = type(chunks) in (list, tuple)
        scope = self.current.so_far
        recorded = scope is not None and (scope.run.used or self._journal is not None)
        if self._start is not None and not recorded:
            wrapper = self._environ.get("wsgi.file_wrapper")
            if whole or (isinstance(wrapper, type) and isinstance(chunks, wrapper)):
                self.end(None)
                return chunks
        if whole and recorded and self.delivers_first:
            for chunk in chunks:
                self.keep(chunk, True)
            self.keep(b"", False)
            self.end(None)
            return chunks
        return SizedChunks(self, chunks) if whole else Chunks(self, chunks)

    @property
    def _keyed_so_far(self) -> bool:
        return self.current.so_far is not None and self._keyed

    def _collected(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body of an answer that has to be stored before it is sent."""
        iterator, error = iter(chunks), None
        while True:
            try:
                chunk = self.next_of(iterator)
            except StopIteration:
                self.keep(b"", False)
                break
            except BaseException as raised:
                error = raised
                break
            if self.current.suspended:
                break
            self.keep(chunk, True)
            self._written.append(chunk)
            overflown = self._answer is not None and self._answer.overflown
            if overflown and self._events_so_far is None:
                return Chunks(self, Rest(self._begin_held(), iterator, chunks))
        error = self.in_context(lambda: close(chunks)) or error
        if self._events_so_far is not None:
            return self._end_of_events(error)
        reply = self.end(error)
        return self._begin_held() if reply is None else self.reply(reply)

    def _begin_held(self) -> list[bytes]:
        """Begin the response that was held back. Returns what there is of its body."""
        self._collects = False
        if self._start is not None:
            status, headers = self._start
            self._start_response(status, [*headers, *text_run_headers(self.run_id)])
        return self._written
