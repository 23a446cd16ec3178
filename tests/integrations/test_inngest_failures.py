"""Failures of steps of stephttp in functions of PyPI `inngest`: retries, `NonRetriableError`,
`RetryAfterError`, and what leaves a function."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest
import pytest

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from tests.integrations.functions_world import STYLES, FunctionWorld, output, serving

done: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


def no_luck() -> None:
    done.append("no luck")
    raise ZeroDivisionError("no luck")


@pytest.mark.parametrize("style", STYLES)
async def test_a_result_that_cannot_be_stored_fails_the_step_at_once(style: str) -> None:
    def wrong() -> int:
        done.append("wrong")
        return object()  # type: ignore[return-value]

    def never() -> Callable[[], None]:
        raise AssertionError("it is refused before")

    async def on_loop(ctx: inngest.Context) -> Any:
        with pytest.raises(stephttp.StepResultError, match="Callable cannot be stored"):
            await step.run("never", never)
        await step.run("wrong", wrong)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        with pytest.raises(stephttp.StepResultError, match="Callable cannot be stored"):
            blocking.run("never", never)
        blocking.run("wrong", wrong)

    async with serving(style, on_loop, in_thread, retries=3) as world:
        error = await world.failure()
    assert (error["name"], done) == ("StepResultError", ["wrong"])
    assert "step 'wrong' returned a value of type builtins.object" in error["message"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_step_is_tried_again_as_often_as_its_function_and_then_raises(style: str) -> None:
    def caught(error: stephttp.StepError) -> Any:
        return [error.name, error.message, "no_luck" in (error.stack or "")]

    async def on_loop(ctx: inngest.Context) -> Any:
        try:
            await step.run("bad", no_luck)
        except stephttp.StepError as error:
            return caught(error)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        try:
            blocking.run("bad", no_luck)
        except stephttp.StepError as error:
            return caught(error)

    async with serving(style, on_loop, in_thread, retries=2) as world:
        assert await world.result() == ["ZeroDivisionError", "no luck", True]
    assert done == ["no luck"] * 3


@pytest.mark.parametrize("style", STYLES)
async def test_each_step_has_all_attempts(style: str) -> None:
    def shaky(name: str) -> str:
        done.append(name)
        if done.count(name) == 1:
            raise ZeroDivisionError(name)
        return name

    async def on_loop(ctx: inngest.Context) -> Any:
        return [await step.run("a", shaky, "a"), await step.run("b", shaky, "b")]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        return [blocking.run("a", shaky, "a"), blocking.run("b", shaky, "b")]

    async with serving(style, on_loop, in_thread, retries=1) as world:
        assert await world.result() == ["a", "b"]
    assert done == ["a", "a", "b", "b"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("settings", "attempts"),
    [({"retries": 1}, 2), ({"retry_on": KeyError}, 1), ({"give_up_on": OSError}, 3)],
    ids=["retries", "retry_on", "give_up_on"],
)
async def test_options_make_a_step_give_up_before_its_function(
    style: str, settings: dict[str, Any], attempts: int
) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        await step.options(**settings).run("bad", no_luck)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        blocking.options(**settings).run("bad", no_luck)

    async with serving(style, on_loop, in_thread, retries=2) as world:
        error = await world.failure()
    assert (error["name"], error["message"]) == ("ZeroDivisionError", "no luck")
    assert done == ["no luck"] * attempts


@pytest.mark.parametrize("style", STYLES)
async def test_more_retries_than_the_function_has_are_refused_before_the_step(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        await step.options(retries=3).run("bad", no_luck)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        blocking.options(retries=3).run("bad", no_luck)

    async with serving(style, on_loop, in_thread, retries=2) as world:
        error = await world.failure()
    assert (error["name"], done) == ("UsageError", [])
    assert "retries=3 is more than its function has (2)" in error["message"]
    assert "create_function(retries=...)" in error["message"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_function_that_takes_too_long_fails_with_a_timeout(style: str) -> None:
    short = timedelta(microseconds=1)

    def caught(error: TimeoutError) -> Any:
        assert isinstance(error, stephttp.StepTimeoutError)
        return error.name

    async def on_loop(ctx: inngest.Context) -> Any:
        try:
            await step.options(timeout=short).run("slow", datetime.now, UTC)
        except TimeoutError as error:
            return caught(error)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        try:
            blocking.options(timeout=short).run("slow", [*range(100_000)].count, 7)
        except TimeoutError as error:
            return caught(error)

    async with serving(style, on_loop, in_thread) as world:
        assert await world.result() == "StepTimeoutError"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", [stephttp.NonRetriableError, inngest.NonRetriableError])
async def test_an_error_that_is_not_to_be_tried_again_fails_its_step_and_not_the_function(
    style: str, kind: type[Exception]
) -> None:
    def bad() -> None:
        done.append("bad")
        raise kind("for good")

    async def on_loop(ctx: inngest.Context) -> Any:
        try:
            await step.run("bad", bad)
        except stephttp.StepError as error:
            return [error.name, error.message, await step.run("after", lambda: "after")]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        try:
            blocking.run("bad", bad)
        except stephttp.StepError as error:
            return [error.name, error.message, blocking.run("after", lambda: "after")]

    async with serving(style, on_loop, in_thread, retries=3) as world:
        assert await world.result() == ["NonRetriableError", "for good", "after"]
    assert done == ["bad"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", [stephttp.RetryAfterError, inngest.RetryAfterError])
async def test_a_step_says_when_it_is_tried_again(style: str, kind: Any) -> None:
    def bad() -> int:
        done.append("bad")
        if len(done) == 1:
            raise kind("later", timedelta(hours=3))
        return len(done)

    async def on_loop(ctx: inngest.Context) -> Any:
        try:
            return await step.run("bad", bad)
        except Exception as error:
            return f"the function must not see {error!r}"

    def in_thread(ctx: inngest.ContextSync) -> Any:
        try:
            return blocking.run("bad", bad)
        except Exception as error:
            return f"the function must not see {error!r}"

    async with serving(style, on_loop, in_thread, retries=1) as world:
        event_id = await world.send("shop/go")
        assert timedelta(hours=2, minutes=59) < asked(world) <= timedelta(hours=3)
        assert output(await world.outcome(event_id)) == 2


@pytest.mark.parametrize("style", STYLES)
async def test_delay_asks_for_a_pause_of_its_own_length(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        await step.options(delay=timedelta(hours=5)).run("bad", no_luck)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        blocking.options(delay=timedelta(hours=5)).run("bad", no_luck)

    async with serving(style, on_loop, in_thread, retries=1) as world:
        event_id = await world.send("shop/go")
        assert timedelta(hours=4, minutes=59) < asked(world) <= timedelta(hours=5, minutes=31)
        assert (await world.outcome(event_id))["error"]["name"] == "ZeroDivisionError"
    assert done == ["no luck"] * 2


def asked(world: FunctionWorld) -> timedelta:
    """Return how much later the latest call of the function wants the next one."""
    latest = world.answers[-1]
    assert latest.status_code == 500, latest.text
    return datetime.fromisoformat(latest.headers["retry-after"]) - datetime.now(UTC)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("raised", "name", "calls"),
    [
        (stephttp.NonRetriableError("no"), "NonRetriableError", 1),
        (stephttp.StepError("no", "Own"), "Own", 1),
        (stephttp.UsageError("no"), "UsageError", 1),
        (stephttp.RetryAfterError("no", 1), "RetryAfterError", 2),
        (LookupError("no"), "LookupError", 2),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_a_function_raises_counts_as_in_endpoints(
    style: str, raised: Exception, name: str, calls: int
) -> None:
    def bad(ctx: inngest.ContextSync) -> None:
        done.append("called")
        raise raised

    async def on_loop(ctx: inngest.Context) -> None:
        done.append("called")
        raise raised

    async with serving(style, on_loop, bad, retries=1) as world:
        error = await world.failure()
    assert (error["name"], error["message"], len(done)) == (name, "no", calls)


@pytest.mark.parametrize("style", STYLES)
async def test_a_step_inside_of_a_step_is_refused(style: str) -> None:
    async def outer() -> None:
        await step.run("inner", no_luck)

    async def on_loop(ctx: inngest.Context) -> Any:
        await step.run("outer", outer)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        blocking.run("outer", lambda: blocking.run("inner", no_luck))

    async with serving(style, on_loop, in_thread, retries=3) as world:
        error = await world.failure()
    assert (error["name"], done) == ("NestedStepError", [])
    assert "step 'inner' was called inside the body of step 'outer'" in error["message"]
