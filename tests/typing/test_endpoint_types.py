"""What type checkers see of a decorated endpoint; mypy and pyright both read this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar, assert_type, overload

import pytest

import stephttp
from stephttp import step
from stephttp.sync import step as sync_step

T = TypeVar("T")
provider = stephttp.setup("https://api.example.com")


@provider.endpoint(id="later", retries=3)
async def later(order: int, *, flag: bool = False) -> list[str]:
    return [str(order)] * (2 if flag else 1)


@provider.endpoint()
def now(name: str) -> int:
    return len(name)


@provider.endpoint(omit_request_body=True, on_divergence="fail")
async def generic(value: T) -> list[T]:
    return [value]


@overload
def double(value: int) -> int: ...
@overload
def double(value: str) -> str: ...
def double(value: int | str) -> int | str:
    return value * 2


class Orders:
    @provider.endpoint(id="on-post")
    async def on_post(self, order_id: int) -> None:
        await step.run("note", lambda: order_id)


async def test_a_decorated_handler_keeps_its_type() -> None:
    assert_type(await later(1, flag=True), list[str])
    assert_type(now("x"), int)
    assert_type(await generic(1.5), list[float])
    assert_type(await Orders().on_post(7), None)
    handler: Callable[[int], Awaitable[list[str]]] = later
    assert await handler(2) == ["2"]
    with pytest.raises(TypeError):
        await later("x", flags=True)  # type: ignore[call-arg, arg-type]  # pyright: ignore


def configured() -> None:
    """Checked, not run."""
    stephttp.configure(stephttp.FnOpts(on_divergence="warn"), on_divergence="fail")
    stephttp.setup("https://api.example.com", on_divergence="fail")
    stephttp.configure(on_divergence="no")  # type: ignore[arg-type]  # pyright: ignore


async def test_steps_take_decorated_and_overloaded_functions() -> None:
    assert_type(await step.run("a", later, 1, flag=True), list[str])
    assert_type(await step.run("b", now, "x"), int)
    assert_type(await step.run("c", generic, "x"), list[str])
    assert_type(await step.run("d", double, "x"), str)
    assert_type(await step.run("e", double, 1), int)


async def invocations() -> None:
    """Checked, not run: the result of another endpoint has the type of its handler's."""
    assert_type(await step.invoke("f", function=later), list[str])
    assert_type(await step.invoke("g", function=now), int)
    assert_type(sync_step.invoke("h", function=later), list[str])
    assert_type(sync_step.invoke("i", function=now), int)


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def test_wrapped_applications() -> None:
    assert_type(provider.asgi(asgi), stephttp.ASGIMiddleware)
    assert_type(provider.wsgi(wsgi), stephttp.WSGIMiddleware)


def user_of(order: int, *, user: str = "") -> str | None:
    return user or None


def urgency_of(order: int, *, user: str = "") -> int:
    return 60 if user else 0


@provider.endpoint(
    concurrency=[stephttp.Concurrency(10), stephttp.Concurrency(limit=1, key=user_of)],
    throttle=stephttp.Throttle(60, timedelta(minutes=1), burst=5, key="payments"),
    priority=urgency_of,
)
async def limited(order: int, *, user: str = "") -> str:
    return user


@provider.endpoint(concurrency=stephttp.Concurrency(2), priority=-5, refuse_over_limit=True)
def limited_in_thread(order: int) -> int:
    return order


def test_limits_leave_the_types_of_a_handler_alone() -> None:
    calls: Callable[..., Awaitable[str]] = limited
    assert_type(limited_in_thread(1), int)
    assert callable(calls)
