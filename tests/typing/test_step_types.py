"""What type checkers see. `make check` runs mypy and pyright over this; pytest runs it too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar, assert_type, overload

import pytest

from stephttp import Event, FetchResponse, ModelAdapter, OutsideRunError, Signal, step
from stephttp.sync import step as sync_step

T = TypeVar("T")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


@overload
async def fetch_one(key: int) -> bytes: ...
@overload
async def fetch_one(key: str, *, strict: bool) -> list[bytes]: ...
async def fetch_one(key: int | str, *, strict: bool = False) -> bytes | list[bytes]:
    return [b"x"] if isinstance(key, str) else b"x"


def promise(n: int) -> Awaitable[float]:
    async def later() -> float:
        return float(n)

    return later()


class Doubler:
    def __call__(self, n: int) -> int:
        return 2 * n


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
    assert_type(await step.run("l", double, "x"), str)
    assert_type(await step.run("m", fetch_one, 1), bytes)
    assert_type(await step.run("n", fetch_one, "x", strict=True), list[bytes])
    assert_type(await step.run("o", promise, 1), float)
    assert_type(await step.run("p", Doubler(), 1), int)
    assert_type(await step.run("q", identity, [EPOCH]), list[datetime])


async def test_options_keep_arguments_and_results() -> None:
    patient = step.options(retries=3)
    assert_type(await patient.run("a", later, 1, flag=True), list[str])
    assert_type(await patient.run("b", now, "text"), int)
    assert_type(await patient.run("c", wrap, "x"), list[str])
    assert_type(await patient.run("d", fetch_one, "x", strict=True), list[bytes])
    typed = step.options(output_type=list[datetime])
    assert_type(await typed.run("e", lambda: [EPOCH]), list[datetime])
    assert_type(await step.options(output_type=int | None).run("f", lambda: 1), Any)
    assert_type(sync_step.options(retries=1).run("g", double, "x"), str)
    assert_type(sync_step.options(output_type=datetime).run("h", now, "x"), datetime)
    careful = step.options(
        retries=3,
        delay=timedelta(seconds=1),
        max_delay=timedelta(minutes=1),
        retry_on=(OSError, TimeoutError),
        give_up_on=PermissionError,
        timeout=timedelta(minutes=1),
        thread=True,
    )
    assert_type(await careful.run("i", now, "text"), int)
    both = step.options(output_type=int, retry_on=[OSError], thread=True)
    assert_type(await both.run("j", lambda: 1), int)
    sync_careful = sync_step.options(retry_on=OSError, timeout=timedelta(minutes=1))
    assert_type(sync_careful.run("k", now, "text"), int)
    with pytest.raises(TypeError):
        step.options(delay=5)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(TypeError):
        step.options(retry=5)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(TypeError):
        sync_step.options(thread=True)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(TypeError):
        await patient.run("i", now, 1)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(ValueError, match="retries must be"):
        step.options(retries=21)


async def parallel_branches() -> None:
    """Checked, not run."""
    pair = await step.parallel((lambda: step.run("a", now, "x"), lambda: step.run("b", wrap, 1)))
    assert_type(pair, tuple[int, list[int]])

    def branch(n: int) -> Callable[[], Awaitable[int]]:
        return lambda: step.run(f"n{n}", identity, n)

    assert_type(await step.parallel([branch(n) for n in range(3)]), tuple[int, ...])
    three = sync_step.parallel((lambda: 1, lambda: "x", lambda: sync_step.run("a", now, "x")))
    assert_type(three, tuple[int, str, int])


async def races() -> None:
    """Checked, not run."""
    hour = timedelta(hours=1)
    event = await step.race(
        "a",
        (
            lambda: step.wait_for_event("b", event="e", timeout=hour),
            lambda: step.sleep("c", hour),
        ),
    )
    assert_type(event, Event | None)
    mixed = await step.first(
        "d", (lambda: step.run("e", now, "x"), lambda: step.run("f", wrap, "x"))
    )
    assert_type(mixed, int | list[str])

    def branch(n: int) -> Callable[[], Awaitable[int]]:
        return lambda: step.run(f"n{n}", identity, n)

    assert_type(await step.race("g", [branch(n) for n in range(3)]), int)
    assert_type(sync_step.first("h", (lambda: 1, lambda: "x")), int | str)
    assert_type(sync_step.race("i", [lambda: sync_step.run("j", now, "x")]), int)


async def requests_with_options() -> None:
    """Checked, not run."""
    patient = step.options(retries=3, delay=timedelta(seconds=1))
    assert_type(await patient.fetch("a", "https://x.test", method="POST"), FetchResponse)
    model = ModelAdapter(url="https://ai.test/chat")
    assert_type(await patient.ai.infer("b", adapter=model, body={}), Any)
    sync_patient = sync_step.options(retries=3)
    assert_type(sync_patient.fetch("c", "https://x.test"), FetchResponse)
    assert_type(sync_patient.ai.infer("d", adapter=model, body={}), Any)


async def waiting_tools() -> None:
    """Checked, not run."""
    hour = timedelta(hours=1)
    assert_type(await step.wait_for_event("a", event="e", timeout=hour), Event | None)
    assert_type(await step.wait_for_signal("b", signal="s", timeout=hour), Signal | None)
    assert_type(await step.send_event("c", Event(name="e")), list[str])
    assert_type(await step.send_event("d", [Event(name="e"), Event(name="f")]), list[str])
    assert_type(await step.invoke("e", function=later), list[str])
    assert_type(await step.invoke("f", function="app-fn", output_type=datetime), datetime)
    assert_type(await step.invoke("g", function="app-fn"), Any)
    assert_type(await step.invoke_by_id("h", function_id="app-fn"), Any)
    assert_type(await step.fetch("i", "https://x.test"), FetchResponse)
    adapter = ModelAdapter(url="https://x.test")
    assert_type(await step.ai.infer("j", adapter=adapter, body={}), Any)
    assert_type(sync_step.wait_for_event("k", event="e", timeout=hour), Event | None)
    assert_type(sync_step.invoke("l", function=now), int)
    assert_type(sync_step.send_event("m", Event(name="e")), list[str])
    await step.wait_for_signal("n", signal="s", timeout=hour, on_conflict="x")  # type: ignore[arg-type]  # pyright: ignore


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
