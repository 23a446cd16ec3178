"""Steps with a timeout, steps in threads, and steps that block the event loop."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

import stephttp
from stephttp import Middleware, StepError, StepTimeoutError, step
from stephttp._run.supervised import BLOCKED_NS, LoopWatch
from stephttp.sync import step as blocking
from tests.durable import KEY, Durable, durable
from tests.integrations.test_reruns import again, body_of, detail, step_ids
from tests.styles import STYLES, fails, serving

SOON, LATE, NAP = timedelta(milliseconds=1), timedelta(hours=1), timedelta(minutes=1)
WHO: ContextVar[str] = ContextVar("who", default="nobody")
LIMITED = step.options(timeout=SOON)


class Plain(Middleware):
    """Does nothing, but is there: steps take another way."""


MIDDLEWARE = pytest.mark.parametrize("middleware", [(), (Plain,)], ids=["alone", "middleware"])


def serving_on_loop(handler: Callable[[], Any], **options: Any) -> Any:
    return serving("async", handler, handler, **options)


# --- timeouts ---


async def forever() -> str:
    await asyncio.Event().wait()
    return "never"


@MIDDLEWARE
async def test_an_async_function_that_takes_longer_fails(middleware: Any) -> None:
    ended: list[str] = []

    async def hangs() -> str:
        try:
            return await forever()
        finally:
            ended.append("cleaned up")

    async def handler() -> list[str]:
        with pytest.raises(StepTimeoutError, match=r"step 'hang' took longer than 0.001 s") as one:
            await LIMITED.run("hang", hangs)
        assert isinstance(one.value, TimeoutError)
        assert isinstance(one.value, StepError)
        return ended

    async with serving_on_loop(handler, middleware=middleware) as w:
        answer = await w.client.get("/")
        assert answer.json() == ["cleaned up"]
        await w.provider.wait(60)
        await w.engine.idle()
        (failed,) = (await w.steps(answer)).values()
        assert failed["error"]["name"] == "StepTimeoutError"
        assert "in forever" in failed["error"]["stack"], "where it was when its time was over"


@pytest.mark.parametrize("kind", [StepTimeoutError, TimeoutError, StepError])
async def test_it_is_the_same_exception_when_it_is_remembered(kind: type[Exception]) -> None:
    caught: list[Exception] = []

    async def handler() -> str:
        try:
            await LIMITED.run("hang", forever)
        except kind as error:
            caught.append(error)
        await step.sleep("nap", NAP)
        return "done"

    async with serving_on_loop(handler) as w:
        first = await w.client.get("/")
        assert (await w.follow(first)).json() == "done"
        now, then = caught
        assert type(now) is type(then) is StepTimeoutError
        assert str(now) == str(then) == "StepTimeoutError: step 'hang' took longer than 0.001 s"


@MIDDLEWARE
async def test_it_is_retried_like_any_failure(middleware: Any) -> None:
    tries: list[int] = []

    async def slow_at_first() -> str:
        tries.append(1)
        return "done" if len(tries) == 3 else await forever()

    async def handler() -> str:
        tool = step.options(timeout=SOON, retries=5, retry_on=TimeoutError)
        return await tool.run("slow", slow_at_first)

    async with serving_on_loop(handler, middleware=middleware) as w:
        first = await w.client.get("/")
        assert (await w.follow(first)).json() == "done"
        assert len(tries) == 3


@MIDDLEWARE
async def test_what_is_in_time_is_not_touched(middleware: Any) -> None:
    patient = step.options(timeout=LATE)

    async def own() -> None:
        async with asyncio.timeout(0):
            await forever()

    async def swallows() -> str:
        try:
            return await forever()
        except asyncio.CancelledError:
            return "half of it"

    async def fails_in_the_end() -> None:
        try:
            await forever()
        finally:
            raise KeyError("while it was cleaning up")

    async def handler() -> list[Any]:
        task = asyncio.current_task()
        assert task is not None
        seen: list[Any] = [await patient.run("a", asyncio.sleep, 0, "a")]
        seen.append(await patient.run("plain", lambda: "plain"))
        with pytest.raises(TimeoutError) as raised:
            await patient.run("own", own)
        seen.append(type(raised.value).__name__)
        seen.append(await LIMITED.run("swallows", swallows))
        with pytest.raises(KeyError):
            await LIMITED.run("cleaning", fails_in_the_end)
        seen.append(task.cancelling())
        return seen

    async with serving_on_loop(handler, middleware=middleware) as w:
        assert (await w.client.get("/")).json() == ["a", "plain", "TimeoutError", "half of it", 0]


@MIDDLEWARE
async def test_a_cancellation_from_outside_stays_one(middleware: Any) -> None:
    began = asyncio.Event()

    async def hangs() -> str:
        began.set()
        return await forever()

    async def handler() -> str:
        task = asyncio.create_task(step.options(timeout=LATE).run("hang", hangs))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "cancelled"

    async with serving_on_loop(handler, middleware=middleware) as w:
        answer = await w.client.get("/")
        assert answer.json() == "cancelled"


async def test_it_counts_in_a_task_that_was_cancelled_before() -> None:
    """A task group that failed leaves such a task behind before Python 3.13."""

    async def handler() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        try:
            with pytest.raises(StepTimeoutError):
                await LIMITED.run("hang", forever)
            return str(task.cancelling())
        finally:
            task.uncancel()

    async with serving_on_loop(handler) as w:
        assert (await w.client.get("/")).json() == "1"


class Clock:
    """A monotonic clock that the functions of steps turn."""

    def __init__(self) -> None:
        self.seconds = 0

    def ns(self) -> int:
        return self.seconds * 1_000_000_000

    def work(self, seconds: int) -> str:
        self.seconds += seconds
        return "done"

    def of(self, world: Durable) -> None:
        world.provider.runtime.monotonic_ns = self.ns


@STYLES
@MIDDLEWARE
async def test_a_function_that_blocks_fails_when_it_returns_too_late(
    style: str, middleware: Any
) -> None:
    clock, minute = Clock(), timedelta(minutes=1)

    async def on_loop() -> str:
        assert await step.options(timeout=minute).run("in time", clock.work, 60) == "done"
        return await step.options(timeout=minute).run("late", clock.work, 61)

    def in_thread() -> str:
        assert blocking.options(timeout=minute).run("in time", clock.work, 60) == "done"
        return blocking.options(timeout=minute).run("late", clock.work, 61)

    async with serving(style, on_loop, in_thread, middleware=middleware) as w:
        clock.of(w)
        await fails(w, StepTimeoutError, "longer than 60 s: its function blocks, so it was not")


async def test_timeouts_outside_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("stephttp.step._outside.monotonic_ns", clock.ns)
    monkeypatch.setattr("stephttp.sync._outside.monotonic_ns", clock.ns)
    with pytest.raises(StepTimeoutError):
        await LIMITED.run("a", forever)
    with pytest.raises(StepTimeoutError):
        await LIMITED.run("b", clock.work, 1)
    with pytest.raises(StepTimeoutError):
        blocking.options(timeout=SOON).run("c", clock.work, 1)
    assert await step.options(timeout=LATE).run("d", clock.work, 1) == "done"
    assert blocking.options(timeout=LATE).run("e", clock.work, 1) == "done"


# --- threads ---

IN_THREAD = step.options(thread=True)


@MIDDLEWARE
async def test_a_function_in_a_thread_does_not_block_the_loop(middleware: Any) -> None:
    released, seen = threading.Event(), []

    def waits(name: str, *, who: str) -> str:
        assert released.wait(60)
        seen.append((threading.current_thread() is not threading.main_thread(), WHO.get()))
        WHO.set("the function")
        return f"{name} {who}"

    async def handler() -> str:
        WHO.set("the handler")
        task = asyncio.create_task(IN_THREAD.run("wait", waits, "for", who="me"))
        await step.run("release", released.set)  # the loop is free
        found = await task
        assert WHO.get() == "the handler"
        return found

    async with serving_on_loop(handler, middleware=middleware) as w:
        assert (await w.client.get("/")).json() == "for me"
        assert seen == [(True, "the handler")]


@MIDDLEWARE
async def test_a_thread_is_inside_its_step(middleware: Any) -> None:
    def nests() -> str:
        return blocking.run("inner", lambda: "inner")

    async def handler() -> str:
        with pytest.raises(stephttp.NestedStepError, match="inside the body of step 'outer'"):
            await IN_THREAD.run("outer", nests)
        return "refused"

    async with serving_on_loop(handler, middleware=middleware) as w:
        assert (await w.client.get("/")).json() == "refused"


async def test_failures_in_threads_are_recorded_and_retried() -> None:
    errors: list[Exception] = [OSError("closed"), StopIteration("empty")]

    def pay() -> str:
        if errors:
            raise errors.pop(0)
        return "paid"

    async def handler() -> str:
        return await step.options(thread=True, retries=3).run("pay", pay)

    async with serving_on_loop(handler) as w:
        first = await w.client.get("/")
        assert (await w.follow(first)).json() == "paid"
        assert (await w.steps(first))["pay"]["attempts"] == 3


async def test_arguments_that_were_edited_for_a_rerun_reach_the_thread() -> None:
    def double(amount: int) -> int:
        return 2 * amount

    async def handler() -> int:
        return await step.options(thread=True, timeout=LATE).run("double", double, 3)

    async with serving_on_loop(handler) as w:
        answer = await w.client.get("/")
        assert answer.json() == 6
        assert await w.provider.wait(60)
        first = answer.headers["x-run-id"]
        edited = (await step_ids(w, first))["double"]
        made = await again(w, first, step_id=edited, input=[4])
        assert body_of(await detail(w, made)) == b"8"


@MIDDLEWARE
async def test_a_thread_is_left_at_its_timeout(middleware: Any) -> None:
    began, released, ended = threading.Event(), threading.Event(), threading.Event()

    def hangs() -> str:
        began.set()
        assert released.wait(60)
        ended.set()
        return "too late"

    async def handler() -> str:
        number, limit = 0, timedelta(milliseconds=1)
        while not began.is_set():  # one that is given up before its thread begins never runs
            number, limit = number + 1, 2 * limit
            with pytest.raises(StepTimeoutError, match="took longer than"):
                await step.options(thread=True, timeout=limit).run(f"hang {number}", hangs)
        assert not ended.is_set()
        return f"hang {number}"

    async with serving_on_loop(handler, middleware=middleware) as w:
        answer = await w.client.get("/")
        released.set()
        assert await asyncio.to_thread(ended.wait, 60)
        await w.provider.wait(60)
        await w.engine.idle()
        assert (await w.steps(answer))[answer.json()]["error"]["name"] == "StepTimeoutError"


async def nothing() -> None: ...


def promises() -> Any:
    return nothing()


class Calls:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize("handler", [nothing, functools.partial(nothing), Calls(), promises])
async def test_async_functions_are_refused_there(handler: Any) -> None:
    refused = r"step 'x': thread=True is for plain functions, and this one is async"

    async def endpoint() -> str:
        with pytest.raises(TypeError, match=refused):
            await IN_THREAD.run("x", handler)
        return "refused"

    with pytest.raises(TypeError, match=refused):
        await IN_THREAD.run("x", handler)
    async with serving_on_loop(endpoint) as w:
        assert (await w.client.get("/")).json() == "refused"


# --- functions that block the event loop ---


class Loads:
    """Functions that take their time, on a clock of their own."""

    def __init__(self) -> None:
        self.now_ns = 0

    def clock(self) -> int:
        return self.now_ns

    def take(self, ms: int) -> str:
        self.now_ns += ms * 1_000_000
        return "loaded"

    async def take_async(self, ms: int) -> str:
        return self.take(ms)


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    def found() -> list[str]:
        return [text for text in caplog.messages if "blocked the event loop" in text]

    with caplog.at_level(logging.WARNING, "stephttp"):
        yield found


@MIDDLEWARE
@pytest.mark.parametrize("options", [{}, {"timeout": LATE}], ids=["plain", "timeout"])
async def test_in_development_a_step_that_blocks_is_named_once(
    middleware: Any, options: dict[str, Any], warnings_of: Callable[[], list[str]]
) -> None:
    loads = Loads()

    async def handler() -> Any:
        tool = step.options(**options)
        await tool.run("short", loads.take, 100)
        await tool.run("later", loads.take_async, 500)
        await step.options(thread=True, **options).run("thread", loads.take, 500)
        await tool.run("load", loads.take, 101)
        await tool.run("load", loads.take, 500)
        return await tool.run("load again", functools.partial(loads.take, 250))

    async with serving_on_loop(handler, middleware=middleware) as w:
        runtime = w.provider.runtime
        runtime.now_ns, runtime.loop_watch = loads.clock, LoopWatch(loads.clock)
        for _ in range(2):
            assert (await w.client.get("/")).json() == "loaded"
    first, second = warnings_of()
    assert first.startswith("stephttp: step 'load' blocked the event loop for 101 ms")
    assert "Loads.take is a plain function" in first
    assert "step.options(thread=True).run('load', ...)" in first
    assert "'load again'" in second


async def test_only_in_development_and_only_on_an_event_loop(
    warnings_of: Callable[[], list[str]],
) -> None:
    loads = Loads()

    async def handler() -> str:
        return await step.run("load", loads.take, 500)

    def blocks() -> str:
        return blocking.run("load", loads.take, 500)

    async with serving_on_loop(handler, key=KEY) as w:
        assert w.provider.runtime.loop_watch is None
        w.provider.runtime.now_ns = loads.clock
        await w.client.get("/")
    for style in ("blocking", "wsgi"):
        async with serving(style, blocks, blocks) as w:
            runtime = w.provider.runtime
            runtime.now_ns, runtime.loop_watch = loads.clock, LoopWatch(loads.clock)
            await w.client.get("/")
    assert warnings_of() == []


def test_ids_made_of_data_do_not_fill_the_log(warnings_of: Callable[[], list[str]]) -> None:
    watch = LoopWatch(lambda: BLOCKED_NS + 1)
    for number in range(1000):
        watch.note(f"load {number}", time.sleep, 0)
    assert len(warnings_of()) == 100
    assert "time.sleep is a plain function" in warnings_of()[0]


async def test_a_flask_view_that_is_async_may_have_timeouts_and_threads() -> None:
    import flask

    app = flask.Flask("app")

    @app.get("/")
    async def view() -> str:
        with pytest.raises(StepTimeoutError):
            await LIMITED.run("hang", forever)
        return await IN_THREAD.run("thread", lambda: "done")

    async with durable(lambda provider: provider.wsgi(app), wsgi=True) as w:
        assert (await w.client.get("/")).text == "done"


async def test_a_handler_whose_steps_race_with_timeouts_is_suspended_as_ever() -> None:
    app = FastAPI()
    done: list[str] = []

    @app.get("/")
    async def handler() -> list[Any]:
        async def hangs() -> str:
            try:
                return await LIMITED.run("hang", forever)
            except TimeoutError:
                return "late"

        found = await asyncio.gather(
            hangs(), step.sleep("nap", NAP), IN_THREAD.run("note", done.append, "note")
        )
        return list(found)

    async with durable(lambda provider: provider.asgi(app)) as w:
        first = await w.client.get("/")
        assert (await w.follow(first)).json() == ["late", None, None]
        assert done == ["note"]
