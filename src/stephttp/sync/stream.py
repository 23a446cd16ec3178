"""`stream.push` and `stream.pipe` for plain `def` code: progress, tokens as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from stephttp._core.pushed_values import PushedChunks
from stephttp._run import pushing

__all__ = ["pipe", "push"]

T = TypeVar("T")


def push(value: Any) -> None:
    """Send a value to all who follow the run of the current request; see `stephttp.stream.push`.

    Args:
        value: what has a JSON form, by the rules for the data of events; bytes are text in UTF-8.

    Raises:
        ValueError: the value has no JSON form.
    """
    pushing.push(value)


def pipe(source: Iterable[T]) -> Iterator[T]:
    """Push each item of a source as it comes, and pass it on.

        for token in stream.pipe(llm.stream(prompt)): ...
        text = "".join(stream.pipe(llm.stream(prompt)))

    Args:
        source: gives what `push` takes. Chunks of bytes may end within a character.

    Returns:
        What gives the same items. Nothing is read before it is asked for them.

    Raises:
        TypeError: `source` cannot be iterated over.
    """
    return _items(iter(source))


def _items(items: Iterator[T]) -> Iterator[T]:
    chunks = PushedChunks()
    for item in items:
        if (value := chunks.next(item)) is not None or item is None:
            push(value)
        yield item
    if (rest := chunks.rest()) is not None:
        push(rest)
