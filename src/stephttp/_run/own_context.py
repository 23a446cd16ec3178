"""The context (`contextvars`) in which the body of an async step runs."""

from __future__ import annotations

from collections.abc import Generator
from contextvars import Context
from types import CoroutineType
from typing import Any


class InContext:
    """A coroutine that is awaited in its own context, but in the task of who awaits it.

    Timeouts, cancel scopes and cancellations are those of the handler's task, as if the coroutine
    were awaited by itself. A task of its own would cost more, and be cancelled differently.
    """

    __slots__ = ("_context", "_coroutine", "_wanted")

    def __init__(
        self,
        coroutine: CoroutineType[Any, Any, Any],
        context: Context,
        wanted: tuple[Any, ...] = (),
    ) -> None:
        self._coroutine = coroutine
        self._context = context
        self._wanted = wanted
        """What the coroutine waits for already, if it was started."""

    # An iterator, and not a generator: a step takes a tenth fewer instructions.
    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # pyright: ignore[reportReturnType]  # `await` needs no more than these methods

    def __iter__(self) -> InContext:
        return self

    def __next__(self) -> Any:
        if self._wanted:
            (wanted,), self._wanted = self._wanted, ()
            return wanted
        return self._context.run(self._coroutine.send, None)

    def send(self, value: Any) -> Any:
        """Let the coroutine continue."""
        if self._wanted:
            return next(self)
        return self._context.run(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where the coroutine waits."""
        return self._context.run(self._coroutine.throw, *error)

    def close(self) -> None:
        """End the coroutine."""
        self._context.run(self._coroutine.close)
