"""`stream.push` and `stream.pipe` for `async def` code: progress, or tokens as they come, for those
who follow a run.

`stephttp.sync.stream` has the same for plain `def` code.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Generator, Iterable
from typing import Any, Generic, TypeVar, overload

from stephttp._core.pushed_values import PushedChunks
from stephttp._run import pushing
from stephttp._run.places import enclosing_step
from stephttp._run.run_stream import RunStream
from stephttp._run.step_call import StepCall

__all__ = ["Pipe", "pipe", "push"]

T = TypeVar("T")


class _Pushed:
    """A value that was pushed. Awaiting it gives a slow caller time to read."""

    __slots__ = ("_stream",)

    def __init__(self, stream: RunStream | None) -> None:
        self._stream = stream

    def __await__(self) -> Generator[Any, None, None]:
        listener = None if self._stream is None else self._stream.listener
        behind = None if listener is None else listener.catch_up()
        if behind is not None:
            yield from behind.__await__()


_TO_NOBODY = _Pushed(None)


def push(value: Any) -> Awaitable[None]:
    """Send a value to all who follow the run of the current request.

    The caller gets it at once if it asked for `text/event-stream`. After a wait, those who follow
    the run get it from the server. Pushes of a step are taken back if the step fails, or begins
    again in another call. Those outside of steps count once, however often the handler is called.
    Outside a request nothing happens.

    Args:
        value: what has a JSON form, by the rules for the data of events; bytes are text in UTF-8.

    Returns:
        What you may await: it is done when a slow caller has read most of what was pushed.

    Raises:
        ValueError: the value has no JSON form.
    """
    return _push(value)


def _push(value: Any, inside: StepCall | None = None) -> Awaitable[None]:
    stream = pushing.push(value, inside)
    return _TO_NOBODY if stream is None or stream.listener is None else _Pushed(stream)


class Pipe(Generic[T]):
    """A source whose items are pushed as they pass by. Iterate over it, once; or await it, for the
    whole text of a source of text."""

    def __init__(self, source: AsyncIterable[T] | Iterable[T]) -> None:
        self._source = source
        # A step may return a pipe, which is then awaited outside of its body.
        self._inside = enclosing_step()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._items()

    @overload
    def __await__(self: Pipe[str]) -> Generator[Any, None, str]: ...
    @overload
    def __await__(self: Pipe[bytes]) -> Generator[Any, None, str]: ...
    def __await__(self: Pipe[Any]) -> Generator[Any, None, str]:
        return self._text().__await__()

    async def _items(self) -> AsyncIterator[T]:
        chunks = PushedChunks()
        async for item in _each(self._source):
            if (value := chunks.next(item)) is not None or item is None:
                await _push(value, self._inside)
            yield item
        if (rest := chunks.rest()) is not None:
            await _push(rest, self._inside)

    async def _text(self) -> str:
        chunks, parts = PushedChunks(), []
        async for item in self._items():
            part = chunks.next(item)
            if part is not None and not isinstance(part, str):
                raise TypeError(
                    f"stream.pipe: awaiting it joins text, but the source has an item of type "
                    f"{type(item).__name__}; iterate over it with `async for`"
                )
            parts.append(part or "")
        return "".join(parts) + (chunks.rest() or "")


def pipe(source: AsyncIterable[T] | Iterable[T]) -> Pipe[T]:
    """Push each item of a source as it comes, and pass it on.

        async for token in stream.pipe(llm.stream(prompt)): ...
        text = await stream.pipe(llm.stream(prompt))

    Args:
        source: gives what `push` takes. Chunks of bytes may end within a character.

    Returns:
        What gives the same items. Nothing is read before it is asked for them.

    Raises:
        TypeError: `source` cannot be iterated over.
    """
    if not isinstance(source, AsyncIterable | Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"stream.pipe: {type(source).__name__} cannot be iterated over")
    return Pipe(source)


async def _each(source: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item
