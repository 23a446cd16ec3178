"""`stephttp.idempotency_key`: one key of a step, in all its attempts, calls and threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

import stephttp
from stephttp import OutsideRunError, UsageError, step
from stephttp._wire.ids import hash_step_id
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.durable import durable
from tests.styles import STYLES, serving

NAP = timedelta(minutes=1)


def in_another_thread() -> str:
    found: list[str] = []
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run, args=(lambda: found.append(stephttp.idempotency_key()),)
    )
    thread.start()
    thread.join()
    return found[0]


@STYLES
async def test_it_is_the_same_in_each_attempt_and_call_of_a_step(style: str) -> None:
    seen: list[str] = []

    def charge(number: int) -> int:
        seen.append(stephttp.idempotency_key())
        assert in_another_thread() == seen[-1]
        if len(seen) in (2, 3):
            raise OSError("the answer was lost")
        return number

    async def charge_later(number: int) -> int:
        assert await asyncio.to_thread(stephttp.idempotency_key) == stephttp.idempotency_key()
        return charge(number)

    async def on_loop() -> list[int]:
        stephttp.configure(retries=3)
        one = await step.run("charge", charge_later, 1)
        await step.sleep("nap", NAP)
        return [one, await step.run("charge", charge_later, 2)]

    def in_thread() -> list[int]:
        stephttp.configure(retries=3)
        one = sync_step.run("charge", charge, 1)
        sync_step.sleep("nap", NAP)
        return [one, sync_step.run("charge", charge, 2)]

    async with serving(style, on_loop, in_thread) as world:
        response = await world.client.get("/")
        assert (await world.follow(response)).json() == [1, 2]
    run_id = response.headers["x-run-id"]
    first, second = (f"{run_id}-{hash_step_id('charge', index)}" for index in (0, 1))
    assert seen == [first, second, second, second]


@STYLES
async def test_outside_a_step_it_says_what_to_do(style: str) -> None:
    def refused() -> str:
        with pytest.raises(UsageError, match=r"the function that you give to step\.run") as raised:
            stephttp.idempotency_key()
        return type(raised.value).__name__

    async def on_loop() -> list[str]:
        before = refused()
        await step.run("s", stephttp.idempotency_key)
        return [before, refused()]

    def in_thread() -> list[str]:
        before = refused()
        sync_step.run("s", stephttp.idempotency_key)
        return [before, refused()]

    async with serving(style, on_loop, in_thread) as world:
        assert (await world.client.get("/")).json() == ["UsageError", "UsageError"]


def test_outside_a_request_it_says_what_to_do() -> None:
    with pytest.raises(OutsideRunError, match="a key of your own"):
        stephttp.idempotency_key()
    with pytest.raises(OutsideRunError, match="a key of your own"):
        sync_step.run("s", stephttp.idempotency_key)


async def test_a_step_that_calls_its_own_application_has_another_key_there() -> None:
    """The request of a step is another run, with steps of its own."""
    keys: list[str] = []
    worlds: list[Any] = []
    app = FastAPI()

    @app.get("/inner")
    async def inner() -> str:
        return await step.run("s", stephttp.idempotency_key)

    @app.get("/")
    async def outer() -> None:
        async def call() -> None:
            keys.append(stephttp.idempotency_key())
            keys.append((await worlds[0].client.get("/inner")).json())

        await step.run("s", call)

    def build(provider: Provider) -> Any:
        return provider.asgi(app)

    async with durable(build) as world:
        worlds.append(world)
        await world.client.get("/")
    (outer_run, outer_step), (inner_run, inner_step) = (key.split("-") for key in keys)
    assert outer_run != inner_run
    assert outer_step == inner_step == hash_step_id("s")
