"""What middleware sees and can change: async and plain methods, both kinds of handlers."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from fastapi import Response

import stephttp
from stephttp import Event, step
from stephttp._run.current import current_scope
from stephttp.middleware import (
    CallEnd,
    Middleware,
    RunContext,
    SendEventsResult,
    StepEnd,
    StepInfo,
    StepMemo,
    TransformOutputResult,
)
from stephttp.options import resolve
from stephttp.sync import step as sync_step
from tests.styles import STYLES, fails, serving

NAP = timedelta(minutes=1)
log: list[Any] = []
place: ContextVar[str] = ContextVar("place", default="outside")


@pytest.fixture(autouse=True)
def _empty_log() -> Iterator[None]:
    log.clear()
    yield
    log.clear()


class Telling(Middleware):
    """Notes its calls; its methods are plain."""

    name = ""

    def note(self, *what: Any) -> None:
        log.append((*what, self.name) if self.name else what)

    def before_call(self) -> None:
        self.note("before_call", self.ctx.resumed, self.ctx.replaying)

    def transform_input(self, steps: Mapping[str, StepMemo]) -> None:
        self.note("transform_input", len(steps))

    def before_execution(self) -> None:
        self.note("before_execution")

    def before_step(self, step: StepInfo) -> None:
        self.note("before_step", step.id, step.op.value, step.attempt)

    def transform_output(self, result: TransformOutputResult) -> None:
        output = result.output if result.has_output() else None
        self.note("transform_output", result.step.id, output)

    def after_step(self, step: StepInfo, end: StepEnd) -> None:
        self.note("after_step", step.id, end.error and str(end.error), end.retried)

    def before_send_events(self, events: list[Event]) -> None:
        self.note("before_send_events", [event.name for event in events])

    def after_send_events(self, result: SendEventsResult) -> None:
        self.note("after_send_events", len(result.ids), result.error and type(result.error))

    def on_error(self, error: Exception, step: StepInfo | None) -> None:
        self.note("on_error", str(error), step and step.id)

    def after_execution(self) -> None:
        self.note("after_execution", self.ctx.suspended)

    def before_response(self, response: stephttp.Response) -> None:
        self.note("before_response", response.status)

    def after_call(self, end: CallEnd) -> None:
        status = end.response and end.response.status
        self.note("after_call", status, end.error and str(end.error), end.run_ended)


def _asynchronous(name: str) -> Callable[..., Any]:
    plain = getattr(Telling, name)

    async def method(self: Telling, *args: Any) -> None:
        for _ in range(20):  # longer than a settled run is left alone
            await asyncio.sleep(0)
        plain(self, *args)

    return method


HOOKS = [name for name in vars(Middleware) if not name.startswith("_")]
Awaiting: type[Telling] = type(
    "Awaiting", (Telling,), dict(zip(HOOKS, map(_asynchronous, HOOKS), strict=True))
)

KINDS = pytest.mark.parametrize("kind", [Telling, Awaiting], ids=["plain", "async"])


def recorded(name: str) -> list[Any]:
    return [entry[1:] for entry in log if entry[0] == name]


@KINDS
@STYLES
async def test_a_run_from_its_first_call_to_its_last(style: str, kind: type[Telling]) -> None:
    async def on_loop() -> dict[str, Any]:
        a = await step.run("a", lambda: {"n": 1})
        await step.sleep("nap", NAP)
        return {"a": a, "b": await step.run("b", lambda: 2)}

    def in_thread() -> dict[str, Any]:
        a = sync_step.run("a", lambda: {"n": 1})
        sync_step.sleep("nap", NAP)
        return {"a": a, "b": sync_step.run("b", lambda: 2)}

    async with serving(style, on_loop, in_thread, middleware=[kind]) as world:
        first = await world.client.get("/")
        final = await world.follow(first)
    assert final.json() == {"a": {"n": 1}, "b": 2}
    assert log == [
        ("before_call", False, False),
        ("transform_input", 0),
        ("before_execution",),
        ("before_step", "a", "StepRun", 0),
        ("transform_output", "a", {"n": 1}),
        ("after_step", "a", None, False),
        ("before_step", "nap", "Sleep", 0),
        ("transform_output", "nap", None),
        ("after_step", "nap", None, False),
        ("after_execution", True),
        ("before_response", 303),
        ("after_call", 303, None, False),
        ("before_call", True, True),
        ("transform_input", 2),
        ("before_execution",),
        ("before_step", "b", "StepRun", 0),
        ("transform_output", "b", 2),
        ("after_step", "b", None, False),
        ("after_execution", False),
        ("before_response", 200),
        ("after_call", 200, None, True),
    ]


@KINDS
@STYLES
async def test_failures_of_steps_and_handlers(style: str, kind: type[Telling]) -> None:
    fails = [True, False]

    def flaky() -> str:
        if fails.pop(0):
            raise ValueError("no luck")
        return "ok"

    async def on_loop() -> None:
        stephttp.configure(retries=1)
        await step.run("flaky", flaky)
        raise RuntimeError("bug")

    def in_thread() -> None:
        stephttp.configure(retries=1)
        sync_step.run("flaky", flaky)
        raise RuntimeError("bug")

    async with serving(style, on_loop, in_thread, middleware=[kind]) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.status_code == 500
    assert recorded("on_error") == [("no luck", "flaky"), ("bug", None), ("bug", None)]
    assert recorded("before_step") == [("flaky", "StepRun", 0), ("flaky", "StepRun", 1)]
    assert recorded("after_step") == [("flaky", "no luck", True), ("flaky", None, False)]
    # The second call fails, and is made again as long as attempts are left.
    assert recorded("after_call") == [
        (303, None, False), (500, "bug", False), (500, "bug", True)
    ]  # fmt: skip


@KINDS
@STYLES
async def test_events_can_be_seen_and_changed(style: str, kind: type[Telling]) -> None:
    class Marking(Middleware):
        def before_send_events(self, events: list[Event]) -> None:
            for event in events:
                event.data = {**event.data, "marked": True}

    mine = Event(name="shop/go", data={"n": 1})

    async def on_loop() -> list[str]:
        return await step.send_event("send", mine)

    def in_thread() -> list[str]:
        return sync_step.send_event("send", mine)

    async with serving(style, on_loop, in_thread, middleware=[kind, Marking]) as world:
        ids = (await world.client.get("/")).json()
        (stored,) = (await world.api.get("/v1/events")).json()["data"]
        assert (stored["internal_id"], stored["data"]) == (ids[0], {"n": 1, "marked": True})
        assert mine.data == {"n": 1}, "the handler's own event stays as it is"
        assert recorded("before_send_events") == [(["shop/go"],)]
        assert recorded("after_send_events") == [(1, None)]
        world.to_engine.down = True
        await fails(world, stephttp.APIConnectionError)
        assert recorded("after_send_events")[1:] == [(0, stephttp.APIConnectionError)]
        world.to_engine.down = False


async def test_their_order_is_that_of_an_onion() -> None:
    class Outer(Telling):
        name = "outer"

    class Inner(Telling):
        name = "inner"

    async def handler() -> None:
        await step.run("a", int)

    async with serving("async", handler, handler, middleware=[Outer, Inner]) as world:
        await world.client.get("/")
    assert [(name, who) for name, *_, who in log] == [
        ("before_call", "outer"), ("before_call", "inner"),
        ("transform_input", "outer"), ("transform_input", "inner"),
        ("before_execution", "outer"), ("before_execution", "inner"),
        ("before_step", "outer"), ("before_step", "inner"),
        ("transform_output", "inner"), ("transform_output", "outer"),
        ("after_step", "inner"), ("after_step", "outer"),
        ("before_response", "outer"), ("before_response", "inner"),
        ("after_execution", "inner"), ("after_execution", "outer"),
        ("after_call", "inner"), ("after_call", "outer"),
    ]  # fmt: skip


class Boxing(Middleware):
    """Keeps every result in a box while it is with the server."""

    def transform_input(self, steps: Mapping[str, StepMemo]) -> None:
        for memo in steps.values():
            if isinstance(memo.data, dict) and "boxed" in memo.data:
                memo.data = memo.data["boxed"]

    def transform_output(self, result: TransformOutputResult) -> None:
        if result.has_output():
            result.output = {"boxed": result.output}
        elif result.step.op is stephttp.OpCode.INVOKE_FUNCTION:
            assert result.step.opts is not None
            result.step.opts["payload"]["data"]["boxed"] = True


@STYLES
async def test_results_and_what_is_asked_can_be_changed_on_their_way(style: str) -> None:
    seen: list[Any] = []

    def point() -> dict[str, int]:
        return {"x": 7}

    def no_function(error: stephttp.StepError) -> None:
        seen.append(error.message)

    async def on_loop() -> None:
        seen.append(await step.run("point", point))
        try:
            await step.invoke_by_id("other", function_id="shop-other", data={"n": 1})
        except stephttp.StepError as error:
            no_function(error)

    def in_thread() -> None:
        seen.append(sync_step.run("point", point))
        try:
            sync_step.invoke_by_id("other", function_id="shop-other", data={"n": 1})
        except stephttp.StepError as error:
            no_function(error)

    async with serving(style, on_loop, in_thread, middleware=[Boxing]) as world:
        first = await world.client.get("/")
        # The engine may be calling again by now, and the application asking for the run's state.
        sent = [one.content for one in world.to_engine.requests if one.method == "POST"]
        checkpoint = json.loads(sent[0])
        ops = {op["op"]: op for op in checkpoint["steps"] if op["name"] != "stephttp:request"}
        assert ops["StepRun"]["data"] == {"boxed": {"x": 7}}
        assert ops["InvokeFunction"]["opts"]["payload"]["data"] == {"n": 1, "boxed": True}
        await world.follow(first)
    assert seen[:2] == [{"x": 7}, {"x": 7}]
    assert "shop-other" in seen[2]


@STYLES
async def test_a_result_that_cannot_be_changed_is_not_sent_as_it_was(style: str) -> None:
    class Broken(Middleware):
        def transform_output(self, result: TransformOutputResult) -> None:
            raise ValueError("no key")

    async def on_loop() -> None:
        await step.run("secret", lambda: "4111 1111")

    def in_thread() -> None:
        sync_step.run("secret", lambda: "4111 1111")

    async with serving(style, on_loop, in_thread, middleware=[Broken]) as world:
        await fails(world, ValueError, "no key")
        assert await world.provider.wait()
        sent = b"".join(request.content for request in world.to_engine.requests)
        assert b"no key" in sent
        assert b"4111" not in sent


async def test_input_that_cannot_be_changed_fails_the_call_and_it_is_made_again() -> None:
    class Locked(Middleware):
        keys = 0

        def transform_input(self, steps: Mapping[str, StepMemo]) -> None:
            Locked.keys += bool(steps)
            if steps and Locked.keys < 3:
                raise ValueError("the key is not there yet")

    async def handler() -> str:
        stephttp.configure(retries=2)
        await step.run("a", log.append, "a")
        await step.sleep("nap", NAP)
        return "done"

    async with serving("async", handler, handler, middleware=[Locked]) as world:
        assert (await world.follow(await world.client.get("/"))).json() == "done"
        assert log == ["a"]
        assert len(world.reentries) == 3


@KINDS
async def test_what_is_told_too_late_to_matter_may_fail(
    kind: type[Telling], caplog: pytest.LogCaptureFixture
) -> None:
    def failing(name: str) -> Callable[..., Any]:
        def plain(self: Any, *args: Any) -> None:
            raise RuntimeError(name)

        async def asynchronous(self: Any, *args: Any) -> None:
            raise RuntimeError(name)

        return plain if kind is Telling else asynchronous

    names = ["after_step", "on_error", "after_execution", "before_response", "after_call"]
    broken = type("Broken", (Middleware,), {name: failing(name) for name in names})

    async def handler() -> str:
        await step.run("a", int)
        await step.sleep("nap", NAP)
        return "done"

    caplog.set_level(logging.WARNING)  # as by default: a framework of another test may have set it
    async with serving("async", handler, handler, middleware=[broken]) as world:
        assert (await world.follow(await world.client.get("/"))).json() == "done"
    told_of = {record.getMessage().rpartition("Broken.")[2] for record in caplog.records}
    assert "after_call failed; the run continues" in told_of
    assert all(record.levelno == logging.ERROR for record in caplog.records)


@STYLES
async def test_context_variables_of_plain_methods_are_seen_where_the_code_runs(style: str) -> None:
    threads: set[int] = set()

    class Placing(Middleware):
        def before_call(self) -> None:
            place.set("call")

        def before_step(self, step: StepInfo) -> None:
            threads.add(threading.get_ident())
            self.token = place.set(f"step {step.id}")

        def after_step(self, step: StepInfo, end: StepEnd) -> None:
            place.reset(self.token)

    def where() -> str:
        threads.add(threading.get_ident())
        return place.get()

    async def on_loop() -> list[str]:
        return [place.get(), await step.run("a", where), place.get()]

    def in_thread() -> list[str]:
        return [place.get(), sync_step.run("a", where), place.get()]

    async with serving(style, on_loop, in_thread, middleware=[Placing]) as world:
        assert (await world.client.get("/")).json() == ["call", "step a", "call"]
    assert len(threads) == 1


async def test_async_methods_cannot_be_called_by_a_blocking_tool_on_the_loop() -> None:
    async def handler() -> str:
        with pytest.raises(stephttp.UsageError, match="to middleware that is async"):
            sync_step.run("a", int)
        return "told"

    class Slow(Middleware):
        async def before_step(self, step: StepInfo) -> None:
            raise AssertionError("never called")

    async with serving("async", handler, handler, middleware=[Slow]) as world:
        assert (await world.client.get("/")).json() == "told"


async def test_a_response_can_be_changed_before_it_is_sent() -> None:
    class Signing(Middleware):
        def before_response(self, response: stephttp.Response) -> None:
            response.headers.append((b"x-served-by", b"us"))
            if response.status == 200:
                response.status = 203

    async def handler(naps: bool = False) -> Response:
        await step.run("a", int)
        if naps:
            await step.sleep("nap", NAP)
        return Response("text")

    async with serving("async", handler, handler, middleware=[Signing]) as world:
        at_once = await world.client.get("/")
        waiting = await world.client.get("/?naps=1")
        later = await world.follow(waiting)
    for answer in (at_once, later):
        assert (answer.status_code, answer.headers["x-served-by"]) == (203, "us")
        assert answer.text == "text"
    assert (waiting.status_code, waiting.headers["x-served-by"]) == (303, "us")


async def test_texts_are_carried_to_later_calls() -> None:
    class Carrying(Middleware):
        def before_call(self) -> None:
            self.ctx.carried.setdefault("first", str(self.ctx.resumed))
            log.append((dict(self.ctx.carried), bool(self.ctx.request_id)))

    async def handler() -> None:
        await step.sleep("nap", NAP)
        await step.sleep("again", NAP)

    async with serving("async", handler, handler, middleware=[Carrying]) as world:
        await world.follow(await world.client.get("/"))
    kept = {"first": "False"}
    assert log == [(kept, False), (kept, True), (kept, True)]


async def test_only_texts_can_be_carried() -> None:
    class Carrying(Middleware):
        def before_call(self) -> None:
            self.ctx.carried["n"] = 7  # type: ignore[assignment]

    async def handler() -> None:
        await step.sleep("nap", NAP)

    async with serving("async", handler, handler, middleware=[Carrying]) as world:
        await fails(world, stephttp.UsageError, r"ctx.carried\['n'\] must be a text, not 7")
        assert world.to_engine.requests == []


async def test_a_caller_who_leaves_ends_the_call() -> None:
    started = asyncio.Event()

    async def handler() -> None:
        await step.run("slow", slow)

    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    async with serving("async", handler, handler, middleware=[Telling]) as world:
        request = asyncio.ensure_future(world.client.get("/"))
        await started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert [name for name, *_ in log][-2:] == ["after_step", "after_call"]
    assert recorded("after_call") == [(None, "", False)]


async def test_a_factory_gets_the_run_and_must_make_middleware() -> None:
    def factory(ctx: RunContext) -> Middleware:
        log.append((ctx.run_id, ctx.request.path, ctx.request.header(b"x-mine"), ctx.used))
        return Middleware(ctx)

    async def handler() -> None:
        await step.run("a", int)

    async with serving("async", handler, handler, middleware=[factory]) as world:
        answer = await world.client.get("/", headers={"x-mine": "1"})
        assert log == [(answer.headers["x-run-id"], "/", "1", False)]
    async with serving("async", handler, handler, middleware=[lambda ctx: 7]) as world:
        with pytest.raises(stephttp.ConfigurationError, match=r"must make a stephttp\.Middleware"):
            await world.client.get("/")


def test_what_setup_refuses() -> None:
    ctx: Any = None
    for given, message in [
        ([Middleware(ctx)], r"middleware\[0\]: .* is neither a class"),
        ([Telling, Boxing, Telling], r"middleware\[2\]: .* twice"),
    ]:
        with pytest.raises(stephttp.ConfigurationError, match=message):
            resolve("https://api.test", middleware=given, environ={})  # type: ignore[arg-type]


@KINDS
async def test_branches_in_threads_are_told_apart(kind: type[Telling]) -> None:
    def in_thread() -> list[int]:
        branches = [partial(sync_step.run, f"n{n}", int) for n in range(3)]
        return list(sync_step.parallel(branches))

    async with serving("blocking", in_thread, in_thread, middleware=[kind]) as world:
        assert (await world.client.get("/")).json() == [0, 0, 0]
    assert sorted(recorded("before_step")) == [(f"n{n}", "StepRun", 0) for n in range(3)]
    assert len(recorded("after_step")) == 3
    assert len(recorded("before_execution")) == 1


@STYLES
async def test_what_a_wait_received_passes_the_middleware_as_well(style: str) -> None:
    async def on_loop() -> Any:
        event = await step.wait_for_event("e", event="shop/go", timeout=NAP)
        return event and [event.name, event.data]

    def in_thread() -> Any:
        event = sync_step.wait_for_event("e", event="shop/go", timeout=NAP)
        return event and [event.name, event.data]

    class Opening(Middleware):
        def transform_input(self, steps: Mapping[str, StepMemo]) -> None:
            for memo in steps.values():
                memo.data["data"] = {"opened": memo.data["data"]}

    async with serving(style, on_loop, in_thread, middleware=[Opening]) as world:
        first = await world.client.get("/")
        await world.engine.idle()
        await world.api.post("/e/any", json={"name": "shop/go", "data": {"n": 1}})
        assert (await world.follow(first)).json() == ["shop/go", {"opened": {"n": 1}}]


async def test_without_middleware_nothing_is_made_for_it() -> None:
    async def handler() -> bool:
        scope = current_scope()
        return scope is not None and scope.hooks is None

    async with serving("async", handler, handler) as world:
        assert (await world.client.get("/")).json() is True


async def test_side_by_side_steps_are_told_apart() -> None:
    async def handler() -> list[int]:
        return await asyncio.gather(*(step.run("n", int) for _ in range(3)))

    async with serving("async", handler, handler, middleware=[Awaiting]) as world:
        assert (await world.client.get("/")).json() == [0, 0, 0]
    assert len(recorded("before_step")) == len(recorded("after_step")) == 3
    assert len(recorded("before_execution")) == 1
