"""The body of a WSGI response, for the server to iterate over: made piece by piece meanwhile
(streaming), or there as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Context
from typing import Protocol

from stephttp._adapters.wsgi.messages import close
from stephttp._run.current import CurrentCall, current_call
from stephttp._wire.http import Response


class StreamingCall(Protocol):
    """The call of the application whose body this is; see `WSGIFirstCall`."""

    context: Context
    current: CurrentCall

    def delivers_first(self) -> bool: ...

    def in_context(self, call: Callable[[], object]) -> BaseException | None: ...

    def keep(self, chunk: bytes, more: bool) -> None: ...

    def end(self, error: BaseException | None) -> Response | None: ...

    def reply(self, reply: Response) -> list[bytes]: ...


class Chunks:
    """The chunks of a response whose handler continues while the server iterates over them.

    Made in the context of the call. The call is the current one there from then on, until it ends:
    setting it for each chunk takes more instructions.

    Args:
        call: of the application.
        chunks: what the application returned.
    """

    __slots__ = ("_call", "_chunks", "_closed", "_ended", "_iterator", "_reply", "_token")

    def __init__(self, call: StreamingCall, chunks: Iterable[bytes]) -> None:
        self._call = call
        self._chunks = chunks
        self._iterator: Iterator[bytes] | None = None
        self._reply: Iterator[bytes] | None = None
        self._ended = self._closed = False
        self._token = current_call.set(call.current)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._reply is not None:
            return next(self._reply)
        return self._call.context.run(self._next)

    def close(self) -> None:
        """End the call: the server has the whole response, or gives it up."""
        if not self._ended or not self._closed:
            self._call.context.run(self._close)

    def _next(self) -> bytes:
        call, iterator = self._call, self._iterator
        if iterator is None:
            iterator = self._iterator = iter(self._chunks)
        try:
            chunk = next(iterator)
        except StopIteration:
            if not call.current.suspended:
                call.keep(b"", False)
                if call.delivers_first():
                    self._close()
                raise
            return self._overtaken(None)
        except BaseException as raised:
            if call.current.suspended:
                return self._overtaken(raised)
            self._end(raised)
            raise
        if call.current.suspended:
            return self._overtaken(None)
        call.keep(chunk, True)
        return chunk

    def _close(self) -> None:
        raised = self._close_inner()
        if raised is not None and self._ended:
            raise raised
        self._end(raised)

    def _overtaken(self, error: BaseException | None) -> bytes:
        """Put the reply of a run that waits in the place of what the application would send."""
        error = self._close_inner() or error
        self._ended = True
        current_call.reset(self._token)
        reply = self._call.end(error)
        assert reply is not None, "the run waits"
        self._reply = iter(self._call.reply(reply))
        return next(self._reply)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            current_call.reset(self._token)
            self._call.end(error)

    def _close_inner(self) -> BaseException | None:
        """Close what the application returned, once. Returns what that raised."""
        if self._closed:
            return None
        self._closed = True
        return self._call.in_context(lambda: close(self._chunks))


class Rest:
    """A body of which the beginning was read.

    Args:
        first: the beginning.
        iterator: gives the others.
        chunks: what the application returned.
    """

    __slots__ = ("_chunks", "_first", "_iterator")

    def __init__(
        self, first: Iterable[bytes], iterator: Iterator[bytes], chunks: Iterable[bytes]
    ) -> None:
        self._first = first
        self._iterator = iterator
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        yield from self._iterator

    def close(self) -> None:
        """Close what the application returned."""
        close(self._chunks)


class SizedChunks(Chunks):
    """Chunks that are there as a whole: servers ask for their number to know the length."""

    __slots__ = ()
    _chunks: list[bytes] | tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self._chunks)


class WholeBody:
    """A body that is there as a whole: no code of the application's runs while it is sent.

    Args:
        call: of the application, whose response has begun.
        chunks: what the application returned.
    """

    __slots__ = ("_call", "_chunks", "_ended")

    def __init__(self, call: StreamingCall, chunks: Sequence[bytes]) -> None:
        self._call = call
        self._chunks = chunks
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)

    def close(self) -> None:
        """End the call: the server has the whole response, or gives it up."""
        if not self._ended:
            self._ended = True
            self._call.context.run(self._call.end, None)
