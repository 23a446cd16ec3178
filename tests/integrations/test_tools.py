"""Each tool, async and blocking, against a server that is a script."""

import asyncio
import importlib
import json
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI

import stephttp
from stephttp import Event, FetchResponse, ModelAdapter, RetryAfterError, Signal, StepError, step
from stephttp._wire.ids import CAPSULE, COMPLETE, hash_step_id
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.styles import STYLES
from tests.wsgi import WSGITransport

HOUR = timedelta(hours=1)
NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01
ADAPTER = ModelAdapter(url="https://ai.test/chat", auth_key="sk", model="m")


class Server:
    """Answers what a server answers, and remembers what it was sent."""

    def __init__(self, features: str = "pending") -> None:
        self.features = features
        self.memos: dict[str, Any] = {}
        self.calls: list[httpx2.Request] = []
        self.event_statuses: list[int] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.calls.append(request)
        answer = self.answer(request)
        answer.headers["x-stephttp-features"] = self.features
        return answer

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path == "/health":
            return httpx2.Response(200)
        if path == "/v1/http/runs":
            ids = {"fn_id": "f", "app_id": "a", "run_id": "r", "token": "t"}
            return httpx2.Response(200, json={"data": ids})
        if path.endswith("/actions"):
            return httpx2.Response(200, json=self.memos)
        if path.startswith("/e/"):
            status = self.event_statuses.pop(0) if self.event_statuses else 200
            sent = [f"id{n}" for n in range(len(json.loads(request.content)))]
            return httpx2.Response(status, json={"ids": sent, "status": status})
        assert path.endswith("/steps"), path
        return httpx2.Response(200)

    def bodies(self, path: str) -> list[Any]:
        return [json.loads(call.content) for call in self.calls if call.url.path.endswith(path)]


class World:
    """An application behind the middleware, and the scripted server."""

    def __init__(self, app: Any, server: Server, **environ: str) -> None:
        async def no_pause(_: float) -> None:
            pass

        self.server = server
        self.provider = Provider(
            resolve("http://app.test", environ={"INNGEST_DEV": "1"} | environ),
            transport=httpx2.MockTransport(server),
            sync_transport=httpx2.MockTransport(server),
            now_ns=lambda: NOW_NS,
            pause=no_pause,
            sync_pause=lambda _: None,
        )
        transport: httpx2.AsyncBaseTransport
        if isinstance(app, flask.Flask):
            transport = WSGITransport(self.provider.wsgi(app))
        else:
            transport = httpx2.ASGITransport(self.provider.asgi(app), raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://app.test")

    async def first(self, path: str = "/") -> list[Any]:
        """A request from outside that must wait; the ops that the server gets."""
        answer = await self.client.get(path)
        assert answer.status_code == 303, answer.text
        ops = self.server.bodies("/runs")[-1]["steps"]
        assert ops[0]["id"] == CAPSULE
        return list(ops[1:])

    async def again(self, path: str = "/", **headers: str) -> httpx2.Response:
        """A call of the server."""
        known = {"x-run-id": "01M81NT13NCCP5V7EQ9MPKSWMT", "x-inngest-signature": ""}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(path, headers=known | headers)


@asynccontextmanager
async def world(app: Any, features: str = "pending", **environ: str) -> AsyncGenerator[World]:
    one = World(app, Server(features), **environ)
    yield one
    await one.provider.aclose()
    await one.client.aclose()


def served(style: str, on_loop: Callable[[], Any], in_thread: Callable[[], Any]) -> Any:
    """An application with the handler of this style."""
    if style != "wsgi":
        return application(on_loop if style == "async" else in_thread)
    app = flask.Flask("tools")
    app.get("/")(lambda: flask.jsonify(in_thread()))
    return app


def application(handler: Callable[[], Any]) -> FastAPI:
    app = FastAPI()
    app.get("/", response_model=None)(handler)
    return app


@stephttp.setup("https://shop.example").endpoint(id="place-order")
async def place_order(order: str) -> dict[str, int]:
    raise NotImplementedError


EVENT = {"name": "demo/go", "data": {"x": 1}, "id": "e1", "ts": 5, "user": {}}
RESPONSE = {"url": "http://x", "status_code": 404, "headers": {"A": "b"}, "body": '{"y":2}'}
ORDER = {"status": 201, "headers": {"content-type": "application/json"}, "body": '{"a":1}'}
# tool, arguments, op, what the server remembers, what the tool returns
TOOLS: list[tuple[str, dict[str, Any], str, Any, Any]] = [
    ("sleep", {"duration": HOUR}, "Sleep", None, None),
    ("sleep_until", {"until": datetime(2027, 1, 1, tzinfo=UTC)}, "Sleep", None, None),
    (
        "wait_for_event",
        {"event": "demo/go", "timeout": HOUR, "if_exp": "async.data.x == 1"},
        "WaitForEvent",
        EVENT,
        Event(name="demo/go", data={"x": 1}, id="e1", ts=5),
    ),
    (
        "wait_for_event",
        {"event": "demo/go", "timeout": HOUR},
        "WaitForEvent",
        {"name": "demo/go", "data": None},
        Event(name="demo/go"),
    ),
    ("wait_for_event", {"event": "demo/go", "timeout": HOUR}, "WaitForEvent", None, None),
    (
        "wait_for_signal",
        {"signal": "go", "timeout": HOUR, "on_conflict": "replace"},
        "WaitForSignal",
        {"data": {"signal": "go", "data": [1]}},
        Signal(signal="go", data=[1]),
    ),
    ("wait_for_signal", {"signal": "go", "timeout": HOUR}, "WaitForSignal", None, None),
    (
        "invoke",
        {"function": "app-fn", "data": {"x": 1}, "output_type": datetime},
        "InvokeFunction",
        {"data": "2026-01-01T00:00:00Z"},
        datetime(2026, 1, 1, tzinfo=UTC),
    ),
    ("invoke", {"function": place_order}, "InvokeFunction", {"data": ORDER}, {"a": 1}),
    ("invoke", {"function": "place-order"}, "InvokeFunction", {"data": ORDER}, {"a": 1}),
    ("invoke_by_id", {"function_id": "place-order"}, "InvokeFunction", {"data": ORDER}, {"a": 1}),
    (
        "invoke_by_id",
        {"app_id": "app", "function_id": "fn", "timeout": HOUR, "v": "1"},
        "InvokeFunction",
        {"data": {"any": 1}},
        {"any": 1},
    ),
    (
        "fetch",
        {"url": "https://x.test", "method": "PUT", "headers": {"a": "b"}, "body": "t"},
        "Gateway",
        {"data": RESPONSE},
        FetchResponse(url="http://x", status_code=404, headers={"A": "b"}, body='{"y":2}'),
    ),
    (
        "ai.infer",
        {"adapter": ADAPTER, "body": {"messages": []}},
        "AIGateway",
        {"data": {"choices": []}},
        {"choices": []},
    ),
]


def handlers(
    tool: str, arguments: dict[str, Any], seen: list[Any]
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The same handler twice: on the event loop, and in a thread."""

    def named(root: Any) -> Any:
        for name in tool.split("."):
            root = getattr(root, name)
        return root

    async def on_loop() -> str:
        try:
            seen.append(await named(step)("s", **arguments))
        except StepError as error:
            seen.append(error)
        return "done"

    def in_thread() -> str:
        try:
            seen.append(named(sync_step)("s", **arguments))
        except StepError as error:
            seen.append(error)
        return "done"

    return on_loop, in_thread


@STYLES
@pytest.mark.parametrize(
    ("tool", "arguments", "op", "memo", "result"),
    TOOLS,
    ids=[f"{row[0]}-{n}" for n, row in enumerate(TOOLS)],
)
async def test_a_waiting_tool(
    style: str, tool: str, arguments: dict[str, Any], op: str, memo: Any, result: Any
) -> None:
    seen: list[Any] = []
    async with world(served(style, *handlers(tool, arguments, seen))) as w:
        (sent,) = await w.first()
        assert (sent["op"], sent["id"], sent["userland"]) == (op, hash_step_id("s"), {"id": "s"})
        assert seen == []
        w.server.memos = {sent["id"]: memo}
        answer = await w.again()
        assert answer.json()["op"] == "RunComplete", answer.text
        assert seen == [result]


@STYLES
async def test_what_a_server_could_not_do_is_a_step_error(style: str) -> None:
    seen: list[Any] = []
    arguments = {"adapter": ADAPTER, "body": {}}
    error = {"name": "AIGatewayError", "message": "429", "data": {"slow": 1}, "stack": "text"}
    async with world(served(style, *handlers("ai.infer", arguments, seen))) as w:
        w.server.memos = {hash_step_id("s"): {"error": error}}
        assert (await w.again()).json()["op"] == "RunComplete"
        (raised,) = seen
        assert (raised.name, raised.message, raised.data) == ("AIGatewayError", "429", {"slow": 1})


@STYLES
async def test_events_are_sent_once(style: str) -> None:
    seen: list[Any] = []
    events = {"events": [Event(name="a/b", data={"x": 1}), Event(name="a/c")]}
    async with world(served(style, *handlers("send_event", events, seen))) as w:
        w.server.event_statuses = [503, 200]
        assert (await w.client.get("/")).json() == "done"
        assert await w.provider.wait()
        first, again = [call for call in w.server.calls if call.url.path.startswith("/e/")]
        assert first.url.path == "/e/NO_EVENT_KEY_SET"
        assert first.content == again.content
        seed = "x-inngest-event-id-seed"
        assert first.headers[seed] == again.headers[seed]
        op = w.server.bodies("/runs")[0]["steps"][0]
        assert (op["op"], op["data"]) == ("StepRun", ["id0", "id1"])
        w.server.memos = {hash_step_id("s"): {"data": ["id0", "id1"]}}
        await w.again()
        assert seen == [["id0", "id1"]] * 2
        assert len(w.server.bodies("/NO_EVENT_KEY_SET")) == 2


async def test_events_need_a_key_in_production() -> None:
    async def handler() -> str:
        try:
            await step.send_event("s", Event(name="n"))
        except stephttp.ConfigurationError as error:
            return str(error)
        return "sent"

    async with world(application(handler), INNGEST_DEV="", INNGEST_SIGNING_KEY="ab" * 16) as w:
        assert "set INNGEST_EVENT_KEY" in (await w.client.get("/")).json()
    environ = {"INNGEST_SIGNING_KEY": "ab" * 16, "INNGEST_DEV": "", "INNGEST_EVENT_KEY": "k"}
    async with world(application(handler), **environ) as w:
        assert (await w.client.get("/")).json() == "sent"
        assert [str(c.url) for c in w.server.calls if "/e/" in c.url.path] == ["https://inn.gs/e/k"]
        assert "event_key" not in repr(w.provider.settings)


async def test_a_blocking_tool_on_the_event_loop_is_refused_where_it_would_hang() -> None:
    async def handler() -> str:
        try:
            sync_step.send_event("s", Event(name="n"))
        except stephttp.UsageError as error:
            return str(error)
        return "sent"

    async with world(application(handler)) as w:
        assert "from stephttp import step" in (await w.client.get("/")).json()


# --- branches ---


async def test_parallel_branches_of_a_coroutine() -> None:
    log: list[str] = []

    async def slow() -> str:
        await asyncio.sleep(0)
        log.append("slow")
        return "slow"

    async def two() -> int:
        first = await step.run("one", lambda: 1)
        return first + await step.run("two", lambda: 2)

    async def handler() -> list[Any]:
        return list(
            await step.parallel(
                (lambda: step.run("slow", slow), two, lambda: step.sleep("nap", HOUR))
            )
        )

    async with world(application(handler)) as w:
        ops = await w.first()
        assert [op["op"] for op in ops] == ["StepRun"] * 3 + ["Sleep"]
        w.server.memos = {op["id"]: {"data": op.get("data")} for op in ops[:-1]}
        w.server.memos[hash_step_id("nap")] = None
        result = (await w.again()).json()["data"]["body"]
        assert json.loads(result) == ["slow", 3, None]
        assert log == ["slow"]


async def test_parallel_branches_in_threads_come_as_far_as_they_can() -> None:
    log: list[str] = []

    def waits_twice() -> str:
        sync_step.sleep("early", HOUR)
        sync_step.run("late", log.append, "late")
        return "waited"

    def swallows() -> None:
        try:
            sync_step.sleep("early too", HOUR)
        except BaseException:
            log.append("ended")
        # Whatever it does from here on leaves no trace.
        sync_step.run("never", log.append, "never")

    def works() -> int:
        return sum(sync_step.run(f"work {n}", int, n) for n in range(20))

    def handler() -> list[Any]:
        try:
            return list(sync_step.parallel((waits_twice, swallows, works)))
        finally:
            log.append("finally")

    async with world(application(handler)) as w:
        ops = await w.first()
        assert sorted(op["op"] for op in ops) == ["Sleep"] * 2 + ["StepRun"] * 20
        assert log == ["ended", "finally"]
        log.clear()
        w.server.memos = {op["id"]: {"data": op.get("data")} for op in ops}
        answer = (await w.again()).json()
        assert json.loads(answer["data"]["body"]) == ["waited", None, 190]
        assert sorted(log) == ["finally", "late", "never"]


@pytest.mark.parametrize("style", ["async", "blocking"])
async def test_a_branch_that_fails_lets_the_others_end(style: str) -> None:
    log: list[str] = []

    def bug() -> None:
        raise KeyError("bug")

    async def on_loop() -> str:
        async def later() -> None:
            for n in range(5):
                await step.run(f"later {n}", log.append, "later")

        try:
            await step.parallel((lambda: step.run("bug", bug), later))
        except KeyError:
            log.append("raised")
        return "done"

    def in_thread() -> str:
        def later() -> None:
            for n in range(5):
                sync_step.run(f"later {n}", log.append, "later")

        try:
            sync_step.parallel((lambda: sync_step.run("bug", bug), later))
        except KeyError:
            log.append("raised")
        return "done"

    async with world(application(on_loop if style == "async" else in_thread)) as w:
        assert (await w.client.get("/")).json() == "done"
        assert log == ["later"] * 5 + ["raised"]


async def test_parallel_outside_a_request() -> None:
    async def two() -> int:
        return 2

    assert await step.parallel((two, lambda: step.run("a", lambda: 3))) == (2, 3)
    assert await step.parallel([]) == ()
    assert sync_step.parallel((lambda: 1, lambda: sync_step.run("a", lambda: 2))) == (1, 2)
    assert sync_step.parallel([]) == ()


# --- options of a step ---


class Busy:
    """A handler whose step is busy, with `retries` and other options of its own."""

    def __init__(
        self, retries: int | None, error: Exception, endpoint: int = 0, **options: Any
    ) -> None:
        self.tries = 0

        def body() -> None:
            self.tries += 1
            raise error

        async def handler() -> str:
            stephttp.configure(retries=endpoint)
            try:
                await step.options(retries=retries, **options).run("s", body)
            except Exception as caught:
                return type(caught).__name__
            return "done"

        self.app = application(handler)


async def test_a_steps_own_retries_are_declared_and_counted() -> None:
    busy = Busy(2, ValueError("busy"))
    async with world(busy.app) as w:
        (op,) = await w.first()
        assert (op["op"], op["opts"]) == ("StepError", {"retries": 2})
        assert w.server.bodies("/runs")[0]["retries"] == 2
        (op,) = (await w.again(x_inngest_generation_id="2")).json()
        assert op["op"] == "StepError"
        last = (await w.again(x_inngest_generation_id="3")).json()
        assert last["op"] == "RunComplete"
        assert json.loads(last["data"]["body"]) == "ValueError"
        assert busy.tries == 3


async def test_our_engine_counts_itself() -> None:
    async with world(Busy(2, ValueError("busy")).app, features="step-retries") as w:
        (op,) = (await w.again(x_inngest_generation_id="9")).json()
        assert op["op"] == "StepError"


async def test_no_retries_under_an_endpoint_that_has_some() -> None:
    async with world(Busy(0, ValueError("busy"), endpoint=4).app) as w:
        assert (await w.client.get("/")).json() == "ValueError"


@pytest.mark.parametrize(
    ("wish", "header"),
    [
        (90, "2026-01-01T00:01:30.000Z"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00.000Z"),
    ],
)
async def test_when_to_try_again_is_in_op_and_header(wish: Any, header: str) -> None:
    async with world(Busy(2, RetryAfterError("busy", wish)).app) as w:
        (op,) = await w.first()
        assert op["opts"] == {"retries": 2, "retry_after": header}
        answer = await w.again()
        assert (answer.status_code, answer.headers["retry-after"]) == (206, header)


async def test_a_resumed_handler_may_say_when_too_or_that_it_is_over() -> None:
    errors = iter([RetryAfterError("busy", HOUR), stephttp.NonRetriableError("never")])

    async def handler() -> None:
        stephttp.configure(retries=5)
        raise next(errors)

    async with world(application(handler)) as w:
        again, final = await w.again(), await w.again()
        assert (again.status_code, again.headers["retry-after"]) == (
            500,
            "2026-01-01T01:00:00.000Z",
        )
        assert final.status_code == 206
        assert "retry-after" not in final.headers


async def test_a_result_type_where_there_is_no_annotation() -> None:
    seen: list[Any] = []

    async def handler() -> None:
        typed = step.options(output_type=list[datetime])
        seen.append(await typed.run("s", lambda: [datetime(2026, 1, 1, tzinfo=UTC)]))

    def blocking() -> None:
        typed = sync_step.options(output_type=tuple[datetime, ...])
        seen.append(typed.run("s", lambda: [datetime(2026, 1, 1, tzinfo=UTC)]))

    when = datetime(2026, 1, 1, tzinfo=UTC)
    for one, expected in ((handler, [when]), (blocking, (when,))):
        async with world(application(one)) as w:
            await w.client.get("/")
            w.server.memos = {hash_step_id("s"): {"data": ["2026-01-01T00:00:00Z"]}}
            await w.again()
            assert seen == [expected, expected]
            seen.clear()


# --- what a server asks for, and what it must never get ---


def planned(log: list[str]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    async def on_loop() -> str:
        await step.run("first", log.append, "first")
        await step.parallel([partial(step.run, n, log.append, n) for n in ("a", "b", "c")])
        return "done"

    def in_thread() -> str:
        sync_step.run("first", log.append, "first")
        sync_step.parallel([partial(sync_step.run, n, log.append, n) for n in ("a", "b", "c")])
        return "done"

    return on_loop, in_thread


@STYLES
async def test_one_planned_step(style: str) -> None:
    log: list[str] = []
    async with world(served(style, *planned(log))) as w:
        w.server.memos = {hash_step_id("first"): {"data": None}}
        answer = await w.again(x_inngest_step_id=hash_step_id("b"))
        assert answer.status_code == 206
        assert [(op["op"], op["name"]) for op in answer.json()] == [("StepRun", "b")]
        assert log == ["b"]
        assert w.server.bodies("/steps") == []


@STYLES
@pytest.mark.parametrize(("generation", "no_retry"), [("1", "true")])
async def test_a_planned_step_that_is_not_there(style: str, generation: str, no_retry: str) -> None:
    log: list[str] = []
    async with world(served(style, *planned(log))) as w:
        answer = await w.again(x_inngest_step_id="nobody", x_inngest_generation_id=generation)
        assert answer.status_code == 500
        body = answer.json()
        assert body["requestedStep"] == "nobody"
        assert body["foundSteps"] == [{"id": hash_step_id("first"), "name": "first"}]
        assert body["totalFoundSteps"] == 1
        assert answer.headers["x-inngest-no-retry"] == no_retry
        assert log == []


async def test_a_planned_step_that_is_over_asks_to_be_called_again() -> None:
    log: list[str] = []
    async with world(application(planned(log)[0])) as w:
        w.server.memos = {hash_step_id(n): {"data": None} for n in ("first", "b")}
        (op,) = (await w.again(x_inngest_step_id=hash_step_id("b"))).json()
        assert (op["op"], log) == ("DiscoveryRequest", [])


async def test_the_name_of_the_root_targets_nothing() -> None:
    log: list[str] = []
    async with world(application(planned(log)[0])) as w:
        assert (await w.again(x_inngest_step_id="step")).json()["id"] == COMPLETE
        assert log == ["first", "a", "b", "c"]


async def test_a_condition_on_the_trigger_is_reported_by_the_re_entry() -> None:
    async def handler() -> str:
        await step.wait_for_event("s", event="e", timeout=HOUR, if_exp="event.data.path == '/'")
        return "done"

    async with world(application(handler)) as w:
        (op,) = await w.first()
        assert (op["op"], "opts" in op) == ("DiscoveryRequest", False)
        (op,) = (await w.again()).json()
        assert (op["op"], op["opts"]["if"]) == ("WaitForEvent", "event.data.path == '/'")


async def test_nothing_empty_is_answered_unless_another_wait_is_open() -> None:
    async def handler() -> str:
        await step.sleep("s", HOUR)
        return "done"

    async with world(application(handler)) as w:
        w.server.memos = {hash_step_id("s"): {"pending": True}}
        assert (await w.again()).json() == []


# --- misuse ---


async def test_every_tool_refuses_to_be_nested_and_to_wait_too_late() -> None:
    from starlette.responses import StreamingResponse

    refused: list[str] = []

    async def inner() -> None:
        for tool, arguments, *_ in TOOLS:
            named: Any = step.ai.infer if tool == "ai.infer" else getattr(step, tool)
            with pytest.raises(stephttp.NestedStepError, match="inside the body of step 'outer'"):
                await named(f"in {tool}", **arguments)
            refused.append(tool)

    async def handler() -> StreamingResponse:
        await step.run("outer", inner)

        async def chunks() -> AsyncGenerator[bytes]:
            yield b"begun"
            for tool, arguments, *_ in TOOLS:
                named: Any = step.ai.infer if tool == "ai.infer" else getattr(step, tool)
                with pytest.raises(stephttp.CannotWaitError, match="the response has started"):
                    await named(f"late {tool}", **arguments)
                refused.append(tool)
            assert await step.run("inline", lambda: 1) == 1
            yield b" and ended"

        return StreamingResponse(chunks())

    async with world(application(handler)) as w:
        assert (await w.client.get("/")).text == "begun and ended"
    assert refused == [row[0] for row in TOOLS] * 2


@pytest.mark.parametrize("tool", sorted({row[0] for row in TOOLS} | {"send_event"}))
async def test_outside_a_request_a_tool_says_what_is_missing(tool: str) -> None:
    found = {row[0]: row[1] for row in TOOLS} | {"send_event": {"events": Event(name="n")}}
    seen: list[Any] = []
    on_loop, in_thread = handlers(tool, found[tool], seen)
    with pytest.raises(stephttp.OutsideRunError, match=rf"step\.{tool} was called outside"):
        await on_loop()
    with pytest.raises(stephttp.OutsideRunError, match=rf"step\.{tool} was called outside"):
        in_thread()


async def test_a_request_to_oneself_inside_a_step_is_another_run() -> None:
    app = FastAPI()
    served: list[Any] = []

    @app.get("/inner")
    async def inner() -> int:
        return await step.run("a", lambda: 1)

    @app.get("/")
    async def outer() -> int:
        async def call() -> int:
            number: int = (await served[0].client.get("/inner")).json()
            return number

        return await step.run("outer", call) + await step.run("a", lambda: 2)

    async with world(app) as w:
        served.append(w)
        assert (await w.client.get("/")).json() == 3
        assert await w.provider.wait()
        names = [[op.get("name") for op in body["steps"]] for body in w.server.bodies("/runs")]
        assert names == [["a", None], ["outer", "a", None]]


async def test_one_request_in_two_runs_is_refused() -> None:
    """What a bridge does that makes a request of its own out of ours, and loses our mark."""

    async def inner() -> int:
        return await step.run("a", lambda: 1)

    async with world(application(inner)) as w:
        wrapped = w.provider.asgi(application(inner))

        async def bridge(scope: Any, receive: Any, send: Any) -> None:
            kept = {k: v for k, v in scope.items() if k != "stephttp.run_id"}
            with pytest.raises(stephttp.ConfigurationError, match="two runs in one context"):
                await wrapped(dict(kept), receive, send)
            await wrapped({**kept, "path": "/missing"}, receive, send)

        transport = httpx2.ASGITransport(w.provider.asgi(bridge))
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            assert (await client.get("/")).status_code == 404


# --- the page ---

PAGE = Path(__file__).parents[2] / "docs" / "steps.md"
BLOCKS = re.findall(r"^## (.*?)\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
ANSWERS: dict[str, Any] = {
    "WaitForEvent": {"name": "order/packed", "data": {"who": "Ada"}},
    "WaitForSignal": {"data": {"signal": "approval-7", "data": "yes"}},
    "InvokeFunction": {"data": {"label": 1}},
    "Gateway": {"data": RESPONSE},
    "AIGateway": {"data": {"choices": []}},
}


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
async def test_a_handler_of_the_page_comes_to_its_end(
    title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "page", raising=False)
    async with world(importlib.import_module("page").app) as w:
        answer = await w.client.get("/")
        ops = [] if answer.status_code == 200 else w.server.bodies("/runs")[-1]["steps"]
        for _ in range(5):
            if answer.status_code == 200:
                break
            for op in ops:
                done = {
                    "StepRun": {"data": op.get("data")},
                    "StepFailed": {"error": op.get("error")},
                }.get(op["op"])
                w.server.memos[op["id"]] = done or ANSWERS.get(op["op"])
            answer = await w.again()
            ops = answer.json()
            if isinstance(ops, dict):
                assert (ops["op"], ops["data"]["status"]) == ("RunComplete", 200), ops
                break
        else:
            raise AssertionError(f"{title}: {ops}")


def test_the_page_has_every_tool() -> None:
    titles = " ".join(title for title, _ in BLOCKS)
    assert [name for name in step.__all__ if name not in titles and name != "ai"] == []
    assert "ai.infer" in titles
    public = set(sync_step.__all__)
    assert public == set(step.__all__)
