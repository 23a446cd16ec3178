"""What type checkers see of pipes; mypy and pyright both read this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import assert_type

import pytest

from stephttp import step, stream
from stephttp.sync import stream as blocking


async def numbers() -> AsyncIterator[int]:
    yield 1


async def letters() -> AsyncIterator[str]:
    yield "a"


async def test_pipes_give_the_items_of_their_source() -> None:
    assert_type(stream.push(1), Awaitable[None])
    assert_type(stream.pipe(numbers()), stream.Pipe[int])
    assert [item async for item in stream.pipe(numbers())] == [1]
    async for item in stream.pipe([1.5]):
        assert_type(item, float)
    assert_type(await stream.pipe(letters()), str)
    assert_type(await stream.pipe([b"a"]), str)
    assert_type(blocking.pipe("abc"), Iterator[str])
    with pytest.raises(TypeError, match="joins text"):
        await stream.pipe(numbers())  # type: ignore[misc]  # pyright: ignore


async def test_a_step_that_returns_a_pipe_has_its_text() -> None:
    assert_type(await step.run("a", lambda: stream.pipe(letters())), str)
