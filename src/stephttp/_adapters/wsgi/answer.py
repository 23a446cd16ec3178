"""The answer of a WSGI application, on its way to the caller: when its run ends, and what is held
back for an idempotency key.

A WSGI body is made after the call of the application has returned, piece by piece, while the
server iterates over it; an application that is a generator even begins then. So the call is the
current one while the application is called, during each step of the iteration, and while the body
is closed; see `chunks`. A body that is a list was made before, and is kept at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeGuard

from stephttp._adapters.wsgi.chunks import Chunks, Rest, SizedChunks, WholeBody
from stephttp._adapters.wsgi.messages import (
    Environ,
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
from stephttp._adapters.wsgi.request import ReceivedCall, rule_of
from stephttp._adapters.wsgi.scope import ThreadScope
from stephttp._run.current import current_call, run_headers
from stephttp._run.hooks import drive_blocking
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.http import Response, text_headers

if TYPE_CHECKING:
    from stephttp._adapters.wsgi.event_answer import EventAnswer


class AnsweredCall(ReceivedCall):
    """A first call, as far as it concerns what its application answers."""

    __slots__ = ("_collects", "_events", "_start", "_start_response", "_written", "context")

    def __init__(
        self, app: WSGIApp, runtime: Runtime, environ: Environ, start_response: StartResponse
    ) -> None:
        ReceivedCall.__init__(self, runtime, app, environ)
        self._start_response = start_response
        self.context = copy_context()
        """The context in which all of this call happens."""
        self._start: tuple[str, list[tuple[str, str]]] | None = None
        """What the application started its response with."""
        self._written: list[bytes] = []
        """What the application has sent, as long as that is held back."""
        self._collects = True
        """Whether the answer of a run with an idempotency key can still be held back."""

    def run_made(self, scope: RunScope) -> None:
        """Prepare a run that was just made; see `HandlerCall`."""
        ReceivedCall.run_made(self, scope)
        self._events: EventAnswer | None = None
        """The answer to a caller who gets events."""

    @abstractmethod
    def end(self, error: BaseException | None) -> Response | None:
        """Conclude the call of an application that has ended, with or without `error`.

        Returns:
            The reply, where it is not the handler's own.

        Raises:
            BaseException: `error`, if it is the application's own.
        """

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

    def _next_of(self, iterator: Iterator[bytes]) -> bytes:
        """Return the next piece of the body, made in the context of the handler."""
        token = current_call.set(self.current)
        try:
            return next(iterator)
        finally:
            current_call.reset(token)

    def keep(self, chunk: bytes, more: bool) -> None:
        """Keep a piece of the body that passes by, if others may ask for it."""
        answer = self._answer
        if answer is not None:
            answer.add(chunk, more)
            if not more and self._start is not None:
                self._status = int(self._start[0][:3])
                self._note_end_of_answer()

    def reply(self, reply: Response) -> list[bytes]:
        """Send a response of the SDK instead of the handler's."""
        return reply_with(self._start_response, reply, run_headers(self._answered_run))

    def _start_response_for_app(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Write:
        """`start_response`, as the application sees it."""
        scope = self.current.begin_response()
        if scope is not None:
            if scope.run.suspended:
                assert isinstance(scope, ThreadScope), "made by `current`"
                if scope.still_waits():
                    return drop
            if not self._keyed and scope.leaves_end():
                return drop
            if not scope.begin_response():
                return drop
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
            self._rule = rule_of(self._environ)  # gone when Flask has ended, which would ask again
            self._keep_answer()
        if self._answer is None:
            return write

        def write_and_keep(data: bytes) -> None:
            self.keep(data, True)
            write(data)

        return write_and_keep

    def _passed_on(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body for the server: as it is, where no step can come of it any more."""
        scope = self.current.so_far
        if scope is not None and (self._keyed or self._events is not None):
            return self._collected(chunks)
        self._collects = False
        if self._start is None:
            return SizedChunks(self, chunks) if _is_whole(chunks) else Chunks(self, chunks)
        recorded = scope is not None and (scope.run.used or self._journal is not None)
        if recorded:
            return self._recorded(chunks) if _is_whole(chunks) else Chunks(self, chunks)
        wrapper = self._environ.get("wsgi.file_wrapper")
        if _is_whole(chunks) or (isinstance(wrapper, type) and isinstance(chunks, wrapper)):
            self.end(None)
            return chunks
        return Chunks(self, chunks)

    def _recorded(self, chunks: Sequence[bytes]) -> Iterable[bytes]:
        """Return a body that is there as a whole, of a run that is reported."""
        for chunk in chunks:
            self.keep(chunk, True)
        self.keep(b"", False)
        if not self.delivers_first():
            return WholeBody(self, chunks)
        self.end(None)
        return chunks

    def _collected(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body of an answer that has to be stored before it is sent."""
        iterator, error = iter(chunks), None
        while True:
            try:
                chunk = self._next_of(iterator)
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


def _is_whole(chunks: Iterable[bytes]) -> TypeGuard[list[bytes] | tuple[bytes, ...]]:
    """Return whether a body is there, so that iterating over it runs no code."""
    return type(chunks) in (list, tuple)
