"""What type checkers see. `make check` runs mypy and pyright over this; pytest runs it too."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TypeVar, assert_type, overload

import pytest

from stephttp import OutsideRunError, step
from stephttp.sync import step as sync_step

T = TypeVar("T")


async def later(n: int, *, flag: bool = False) -> list[str]:
    return [str(n)] * (2 if flag else 1)


def now(text: str) -> int:
    return len(text)


def identity(value: T) -> T:
    return value


async def wrap(value: T) -> list[T]:
    return [value]


@overload
def double(value: int) -> int: ...
@overload
def double(value: str) -> str: ...
def double(value: int | str) -> int | str:
    return value * 2


class Service:
    async def load(self, key: str) -> dict[str, int]:
        return {key: 1}

    @classmethod
    def make(cls, name: str) -> str:
        return name


async def test_async_tools_keep_arguments_and_results() -> None:
    assert_type(await step.run("a", later, 1), list[str])
    assert_type(await step.run("b", later, 1, flag=True), list[str])
    assert_type(await step.run("c", now, "text"), int)
    assert_type(await step.run("d", identity, 1.5), float)
    assert_type(await step.run("e", wrap, "x"), list[str])
    assert_type(await step.run("f", Service().load, "k"), dict[str, int])
    assert_type(await step.run("g", Service.make, "n"), str)
    assert_type(await step.run("h", partial(later, 2)), list[str])
    assert_type(await step.run("i", lambda: 3), int)
    assert_type(await step.run("j", double, 2), int)
    assert_type(await step.run("k", lambda: None), None)


def test_sync_tools_keep_arguments_and_results() -> None:
    assert_type(sync_step.run("a", now, "text"), int)
    assert_type(sync_step.run("b", double, "x"), str)
    assert_type(sync_step.run("c", Service.make, "n"), str)


async def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(TypeError):
        await step.run("a", now, 1)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(TypeError):
        await step.run("b", later)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(TypeError):
        sync_step.run("c", now)  # type: ignore[call-arg]  # pyright: ignore
    with pytest.raises(TypeError, match="a timedelta"):
        await step.sleep("d", 5)  # type: ignore[arg-type]  # pyright: ignore
    with pytest.raises(OutsideRunError):
        assert_type(await step.sleep("e", timedelta(1)), None)
