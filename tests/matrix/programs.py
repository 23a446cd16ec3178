"""The handlers of the matrix, each with its request and what comes of it.

The same handler runs in all frameworks, so it is a generator (see `frameworks`). With `late`, it
waits first: what it does then happens in a re-entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic

import stephttp
from stephttp import ModelAdapter
from tests.matrix.frameworks import Program, Use

NAP, HOUR = timedelta(minutes=1), timedelta(hours=1)
SOON = datetime(2026, 12, 24, tzinfo=UTC)
Flow = Generator[Any, Any, Any]
BINARY = b"\xff\x00\xfe"


@dataclass
class Cell:
    """A handler, the request that it gets, and what comes of it.

    Args:
        program: the handler.
        value: what it answers, as JSON; `...`: something else, which is only compared.
        status: of its answer.
        runs: how often the bodies of its steps run.
        request: method, query, headers, body.
        failures: how often each body fails.
        act: what happens while it waits: the name of a method of `sides.Side`, and its arguments.
        on_loop: whether it needs a handler on a loop.
        waits: how often it may wait in addition: `both`: first, or not; or only one of them.
    """

    program: Program
    value: Any = None
    status: int = 200
    runs: dict[str, int] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    act: tuple[str, ...] = ()
    on_loop: bool = False
    when: tuple[str, ...] = ("first", "late")
    before: str = ""
    twice: bool = False
    retries: int | None = None


CELLS: dict[str, Cell] = {}


def cell(value: Any = None, status: int = 200, **more: Any) -> Any:
    """Put a program into the table, under its own name."""

    def put(program: Program) -> Program:
        def whole(u: Use) -> Flow:
            if (retries := CELLS[name].retries) is not None:
                stephttp.configure(retries=retries)
            if "late" in u.query():
                yield u.step.sleep("late", NAP)
            return (yield from program(u))

        name = program.__name__.strip("_").replace("_", "-")
        assert name not in CELLS
        CELLS[name] = Cell(whole, value, status, **more)
        return program

    return put


# --- tools ------------------------------------------------------------------------------------


@cell(["a", "b"], runs={"a": 1, "b": 1})
def run(u: Use) -> Flow:
    return u.json([(yield u.do("a")), (yield u.do("b"))])


@cell(["a", "b"], runs={"a": 1, "b": 1})
def sleep(u: Use) -> Flow:
    a = yield u.do("a")
    yield u.step.sleep("nap", NAP)
    return u.json([a, (yield u.do("b"))])


@cell("b", runs={"a": 1, "b": 1})
def sleep_until(u: Use) -> Flow:
    yield u.do("a")
    yield u.step.sleep_until("until", SOON)
    return u.json((yield u.do("b")))


@cell("ok")
def sleep_no_time(u: Use) -> Flow:
    yield u.step.sleep("none", timedelta(0))
    yield u.step.sleep_until("past", datetime(2020, 1, 1, tzinfo=UTC))
    return u.json("ok")


@cell({"n": 1}, runs={"a": 1, "b": 1}, act=("event", "packed"))
def wait_for_event(u: Use) -> Flow:
    yield u.do("a")
    event = yield u.step.wait_for_event("wait", event="packed", match={"data.n": 1}, timeout=HOUR)
    yield u.do("b")
    return u.json(event.data)


@cell(None, runs={"a": 1, "b": 1})
def wait_for_event_timeout(u: Use) -> Flow:
    yield u.do("a")
    event = yield u.step.wait_for_event("wait", event="never", timeout=HOUR)
    yield u.do("b")
    return u.json(event)


@cell({"n": 1}, runs={"b": 1}, act=("signal", "approval"))
def wait_for_signal(u: Use) -> Flow:
    signal = yield u.step.wait_for_signal("wait", signal="approval", timeout=HOUR)
    yield u.do("b")
    return u.json(signal.data)


@cell({"n": 1}, runs={}, act=("signal", "replaced"))
def wait_for_signal_replace(u: Use) -> Flow:
    signal = yield u.step.wait_for_signal(
        "wait", signal="replaced", timeout=HOUR, on_conflict="replace"
    )
    return u.json(signal.data)


@cell(None, runs={"b": 1})
def wait_for_signal_timeout(u: Use) -> Flow:
    signal = yield u.step.wait_for_signal("wait", signal="nobody", timeout=HOUR)
    yield u.do("b")
    return u.json(signal)


@cell(..., 500, act=("signal", "taken"), twice=True)
def signal_conflict(u: Use) -> Flow:
    signal = yield u.step.wait_for_signal("wait", signal="taken", timeout=HOUR)
    return u.json(signal.data)


@cell([2, "b"], runs={"b": 1})
def send_event(u: Use) -> Flow:
    events = [stephttp.Event(name="sent", data={"n": n}) for n in (1, 2)]
    ids = yield u.step.send_event("send", events)
    yield u.step.sleep("nap", NAP)
    return u.json([len(ids), (yield u.do("b"))])


@cell(["a", "b"], runs={"a": 2, "b": 1}, before="/run")
def invoke(u: Use) -> Flow:
    yield u.do("a")
    return u.json((yield u.step.invoke("call", function="GET /run", timeout=HOUR)))


@cell(["refused", "b"], runs={"b": 1})
def invoke_refused(u: Use) -> Flow:
    try:
        yield u.step.invoke("call", function="GET /nowhere", timeout=HOUR)
    except (stephttp.UsageError, stephttp.StepError):
        return u.json(["refused", (yield u.do("b"))])


@cell([200, {"method": "GET"}], runs={"b": 1})
def fetch(u: Use) -> Flow:
    found = yield u.step.fetch("get", "http://other.test/")
    yield u.do("b")
    return u.json([found.status_code, found.json()])


@cell([200, {"method": "POST", "body": {"a": 1}}], runs={"b": 1})
def fetch_json(u: Use) -> Flow:
    found = yield u.step.fetch("post", "http://other.test/", method="POST", body='{"a":1}')
    yield u.do("b")
    return u.json([found.status_code, found.json()])


@cell([200, {"method": "POST", "body": "a=1"}])
def fetch_text(u: Use) -> Flow:
    found = yield u.step.fetch("post", "http://other.test/", method="POST", body="a=1")
    return u.json([found.status_code, found.json()])


@cell([404, "missing"])
def fetch_missing(u: Use) -> Flow:
    found = yield u.step.fetch("get", "http://other.test/missing")
    return u.json([found.status_code, found.body])


@cell({"method": "POST", "body": {"model": "m", "q": 1}}, runs={"b": 1})
def infer(u: Use) -> Flow:
    adapter = ModelAdapter(url="https://other.test/chat", auth_key="k", model="m")
    found = yield u.step.ai.infer("think", adapter=adapter, body={"q": 1})
    yield u.do("b")
    return u.json(found)


@cell(["a"] * 3 + ["b"], runs={"a": 3, "b": 1})
def steps_of_one_name(u: Use) -> Flow:
    found = []
    for _ in range(3):
        found.append((yield u.do("a")))
        yield u.step.sleep("nap", NAP)
    return u.json([*found, (yield u.do("b"))])


@cell(25, runs={f"s{number}": 1 for number in range(25)})
def many_steps(u: Use) -> Flow:
    found = []
    for number in range(25):
        found.append((yield u.do(f"s{number}")))
    yield u.step.sleep("nap", NAP)
    return u.json(len(found))


@cell(["run", True], runs={"a": 1})
def current_run(u: Use) -> Flow:
    before = stephttp.current_run()
    kept = yield u.step.run("id", lambda: before.id)
    yield u.do("a")
    yield u.step.sleep("nap", NAP)
    now = stephttp.current_run()
    return u.json(["run", kept == now.id])


# --- results ----------------------------------------------------------------------------------


class Order(pydantic.BaseModel):
    """What a step returns."""

    item: str
    at: datetime
    parts: list["Order"] = []


@dataclass
class Point:
    """What a step returns."""

    x: int
    tags: set[str]


def make_order() -> Order:
    return Order(item="a", at=SOON, parts=[Order(item="b", at=SOON)])


def make_point() -> Point:
    return Point(1, {"t"})


def make_pair() -> tuple[int, bytes]:
    return 1, BINARY


@cell(["Order", "b", 2026])
def result_pydantic(u: Use) -> Flow:
    order = yield u.step.run("order", make_order)
    yield u.step.sleep("nap", NAP)
    return u.json([type(order).__name__, order.parts[0].item, order.parts[0].at.year])


@cell(["Point", 1, ["t"]])
def result_dataclass(u: Use) -> Flow:
    point = yield u.step.run("point", make_point)
    yield u.step.sleep("nap", NAP)
    return u.json([type(point).__name__, point.x, list(point.tags)])


@cell([1, 3])
def result_bytes(u: Use) -> Flow:
    number, data = yield u.step.run("pair", make_pair)
    yield u.step.sleep("nap", NAP)
    assert data == BINARY
    return u.json([number, len(data)])


@cell("Order")
def result_output_type(u: Use) -> Flow:
    def plain() -> Any:
        return make_order().model_dump(mode="json")

    order = yield u.step.options(output_type=Order).run("order", plain)
    yield u.step.sleep("nap", NAP)
    return u.json(type(order).__name__)


@cell({"data": {"data": 1}})
def result_envelope(u: Use) -> Flow:
    value = yield u.step.run("a", lambda: {"data": {"data": 1}})
    yield u.step.sleep("nap", NAP)
    return u.json(value)


# --- failures ---------------------------------------------------------------------------------


@cell("a", runs={"a": 3, "b": 1}, failures={"a": 2})
def retries_of_a_step(u: Use) -> Flow:
    a = yield u.do("a", retries=2)
    yield u.do("b")
    return u.json(a)


@cell("a", runs={"before": 1, "a": 3}, failures={"a": 2}, retries=2)
def retries_of_an_endpoint(u: Use) -> Flow:
    yield u.do("before")
    return u.json((yield u.do("a")))


@cell(..., 500, runs={"before": 1, "a": 3}, failures={"a": 9})
def retries_used_up(u: Use) -> Flow:
    yield u.do("before")
    return u.json((yield u.do("a", retries=2)))


@cell(..., 500, runs={"a": 1}, failures={"a": 9}, retries=0)
def retries_0(u: Use) -> Flow:
    return u.json((yield u.do("a")))


@cell(..., 500, runs={"a": 1}, failures={"a": 9}, retries=5)
def retries_0_of_a_step(u: Use) -> Flow:
    return u.json((yield u.do("a", retries=0)))


@cell("repaired", runs={"a": 2, "repair": 1}, failures={"a": 9})
def failure_caught(u: Use) -> Flow:
    try:
        yield u.do("a", retries=1)
    except (stephttp.StepError, ConnectionError):
        yield u.step.sleep("nap", NAP)
        yield u.do("repair")
    return u.json("repaired")


@cell(..., 500, runs={"a": 1}, retries=3)
def non_retriable(u: Use) -> Flow:
    def body() -> None:
        u.counts.done["a"] += 1
        raise stephttp.NonRetriableError("no")

    return u.json((yield u.step.run("a", body)))


@cell(..., 500, runs={"a": 1}, retries=3)
def non_retriable_of_the_handler(u: Use) -> Flow:
    yield u.do("a")
    raise stephttp.NonRetriableError("no")


@cell("ok", runs={"a": 2}, failures={"late": 1}, retries=3)
def retry_after(u: Use) -> Flow:
    def body() -> str:
        u.counts.done["a"] += 1
        if u.counts.done["a"] == 1:
            raise stephttp.RetryAfterError("busy", timedelta(minutes=5))
        return "ok"

    return u.json((yield u.step.run("a", body)))


@cell("ok", runs={"a": 1, "handler": 3}, failures={"handler": 2}, when=("late",), retries=2)
def retries_of_the_handler(u: Use) -> Flow:
    yield u.do("a")
    u.counts.body("handler")
    return u.json("ok")


@cell(..., 500, runs={"a": 1, "handler": 3}, failures={"handler": 9}, when=("late",), retries=2)
def retries_of_the_handler_used_up(u: Use) -> Flow:
    yield u.do("a")
    u.counts.body("handler")
    return u.json("ok")


@cell(..., 500, runs={"a": 1})
def exception(u: Use) -> Flow:
    yield u.do("a")
    raise LookupError("a bug")


@cell(..., 409, runs={"a": 1}, act=("cancel",))
def cancel(u: Use) -> Flow:
    yield u.do("a")
    yield u.step.wait_for_event("wait", event="never", timeout=HOUR)
    yield u.do("never")
    return u.json("late")


# --- answers ----------------------------------------------------------------------------------


@cell(..., 404, runs={"a": 1})
def not_found(u: Use) -> Flow:
    yield u.do("a")
    raise u.abort(404, "no such order")


@cell(..., 409, runs={"a": 1})
def conflict(u: Use) -> Flow:
    yield u.do("a")
    raise u.abort(409, "taken")


@cell(..., 503, runs={"a": 1})
def unavailable(u: Use) -> Flow:
    yield u.do("a")
    raise u.abort(503, "elsewhere")


@cell({"detail": "short"}, 422, runs={"a": 1})
def error_answer(u: Use) -> Flow:
    yield u.do("a")
    return u.json({"detail": "short"}, 422, x_own="yes")


@cell({"detail": "away"}, 502, runs={"a": 1})
def error_answer_5xx(u: Use) -> Flow:
    yield u.do("a")
    return u.json({"detail": "away"}, 502, x_own="yes")


@cell(..., 307, runs={"a": 1})
def redirect(u: Use) -> Flow:
    yield u.do("a")
    return u.redirect("/elsewhere?x=1")


@cell(..., 204, runs={"a": 1})
def empty(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(b"", 204, {"x-own": "yes"})


@cell(..., 200, runs={"a": 1})
def empty_200(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(b"", 200, {"x-own": "yes", "content-type": "text/plain"})


@cell(1, 201, runs={"a": 1})
def headers_and_cookie(u: Use) -> Flow:
    yield u.do("a")
    answer = u.json(1, 201, x_own="yes", location="/orders/1", etag='"x"')
    answer.set_cookie("a", "1", httponly=True)
    return answer


@cell(1, runs={"a": 1})
def header_in_latin_1(u: Use) -> Flow:
    yield u.do("a")
    return u.json(1, x_own="é")


@cell(1, runs={"a": 1})
def cookies(u: Use) -> Flow:
    yield u.do("a")
    answer = u.json(1)
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


@cell(..., runs={"a": 1})
def text(u: Use) -> Flow:
    yield u.do("a")
    return u.raw("Grüße 🙂\n".encode(), 200, {"content-type": "text/plain; charset=utf-8"})


@cell(..., runs={"a": 1})
def text_like_an_envelope(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(b'{"data":{"status":404,"headers":{},"body":""}}', 200, {"content-type": "a/b"})


@cell(..., runs={"a": 1})
def binary(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(BINARY, 200, {"content-type": "application/octet-stream"})


@cell(..., runs={"a": 1})
def chunks(u: Use) -> Flow:
    yield u.do("a")
    return u.chunks([b"one ", b"two ", b"three"])


@cell(1, runs={"a": 1, "behind": 1})
def background_task(u: Use) -> Flow:
    yield u.do("a")
    return u.after(u.json(1), lambda: u.counts.body("behind"))


@cell(..., runs={"a": 1}, when=("first",), request={"headers": {"accept": "text/event-stream"}})
def pushes(u: Use) -> Flow:
    u.stream.push("before")
    yield u.do("a")
    u.stream.push({"n": 1})
    return u.json(1)


# --- requests ---------------------------------------------------------------------------------


@cell(["x y", "é"], runs={"a": 1}, request={"query": "q=x+y&q=%C3%A9"})
def query(u: Use) -> Flow:
    yield u.do("a")
    return u.json(u.query()["q"])


_SENT = {"authorization": "Bearer t", "cookie": "s=1", "x-own": "mine", "accept": "a/b"}


@cell(["Bearer t", "1", "a/b"], runs={"a": 1}, request={"headers": _SENT})
def request_headers(u: Use) -> Flow:
    yield u.do("a")
    return u.json([u.header("authorization"), u.cookie("s"), u.header("accept")])


def _method(u: Use) -> Flow:
    yield u.do("a")
    return u.json([u.request.method, bytes((yield u.body())).decode()])


for _name in ("PUT", "PATCH", "DELETE", "OPTIONS"):
    _sent = "" if _name == "OPTIONS" else "text"
    _method.__name__ = f"method_{_name.lower()}"
    cell([_name, _sent], runs={"a": 1}, request={"method": _name, "content": _sent})(_method)


@cell(..., runs={"a": 1}, when=("first",), request={"method": "HEAD"})
def method_head(u: Use) -> Flow:
    yield u.do("a")
    return u.json(u.request.method, x_own="yes")


@cell([[255, 0, 254]], runs={"a": 1}, request={"method": "POST", "content": BINARY})
def body_bytes(u: Use) -> Flow:
    data = yield u.body()
    yield u.do("a")
    return u.json([list(data)])


@cell(1, runs={"a": 1}, request={"method": "POST", "content": b"not read"})
def body_not_read(u: Use) -> Flow:
    yield u.do("a")
    return u.json(1)


@cell('{"é": [1.0]}', runs={"a": 1}, request={
    "method": "POST", "content": '{"é": [1.0]}', "headers": {"content-type": "application/json"}
})  # fmt: skip
def body_json(u: Use) -> Flow:
    yield u.do("a")
    return u.json(bytes((yield u.body())).decode())


@cell({"name": "Ada & é", "n": "1"}, runs={"a": 1}, request={
    "method": "POST", "data": {"name": "Ada & é", "n": "1"}
})  # fmt: skip
def body_form(u: Use) -> Flow:
    yield u.do("a")
    return u.json((yield u.form()))


@cell({"note": "n", "file": ["a.txt", "in it"]}, runs={"a": 1}, request={
    "method": "POST", "data": {"note": "n"}, "files": {"file": ("a.txt", b"in it")}
})  # fmt: skip
def body_multipart(u: Use) -> Flow:
    yield u.do("a")
    return u.json((yield u.form()))


@cell("a", runs={"a": 1}, twice=True, request={
    "method": "POST", "headers": {"idempotency-key": "one"}
})  # fmt: skip
def idempotency_key(u: Use) -> Flow:
    yield from ()
    return u.json((yield u.do("a")))


# --- parallel branches ------------------------------------------------------------------------


def _link(u: Use, name: str, *, nap: bool = True) -> Flow:
    yield u.do(f"{name}1")
    if nap:
        yield u.step.sleep(f"{name}2", NAP)
    return (yield u.do(f"{name}3"))


_LINKS = {f"{name}{number}": 1 for name in "xyz" for number in (1, 3)} | {"last": 1}
_ALL = ["x3", "y3", "z3", "last"]


@cell(_ALL, runs=_LINKS)
def parallel(u: Use) -> Flow:
    found = yield u.step.parallel([u.branch(_link(u, name)) for name in "xyz"])
    return u.json([*found, (yield u.do("last"))])


@cell(_ALL, runs=_LINKS)
def parallel_without_waits(u: Use) -> Flow:
    found = yield u.step.parallel([u.branch(_link(u, name, nap=False)) for name in "xyz"])
    return u.json([*found, (yield u.do("last"))])


@cell(_ALL, runs=_LINKS, on_loop=True)
def gather(u: Use) -> Flow:
    found = yield asyncio.gather(*(u.branch(_link(u, name))() for name in "xyz"))
    return u.json([*found, (yield u.do("last"))])


@cell(_ALL, runs=_LINKS, on_loop=True)
def task_group(u: Use) -> Flow:
    async def group() -> list[Any]:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(u.branch(_link(u, name))()) for name in "xyz"]
        return [task.result() for task in made]

    return u.json([*(yield group()), (yield u.do("last"))])


@cell([["a", "a", "a"], "last"], runs={"a": 3, "last": 1})
def parallel_of_one_name(u: Use) -> Flow:
    def branch() -> Flow:
        yield u.step.sleep("nap", NAP)
        return (yield u.do("a"))

    found = yield u.step.parallel([u.branch(branch()) for _ in range(3)])
    return u.json([list(found), (yield u.do("last"))])


@cell(["x3", "caught", "last"], runs={"x1": 1, "x3": 1, "bad": 2, "last": 1}, failures={"bad": 9})
def parallel_with_a_failure(u: Use) -> Flow:
    def bad() -> Flow:
        yield u.step.sleep("bad nap", NAP)
        try:
            yield u.do("bad", retries=1)
        except (stephttp.StepError, ConnectionError):
            return "caught"

    found = yield u.step.parallel([u.branch(_link(u, "x")), u.branch(bad())])
    return u.json([*found, (yield u.do("last"))])


@cell(..., 500, runs={"x1": 1, "x3": 1, "bad": 1}, failures={"bad": 9})
def parallel_that_fails(u: Use) -> Flow:
    def bad() -> Flow:
        yield u.step.sleep("bad nap", 2 * NAP)
        yield u.do("bad")

    yield u.step.parallel([u.branch(_link(u, "x")), u.branch(bad())])
    return u.json("never")


@cell([200, {"n": 1}, None], runs={"a": 1}, act=("event", "beside"))
def parallel_of_tools(u: Use) -> Flow:
    def fetched() -> Flow:
        return (yield u.step.fetch("get", "http://other.test/")).status_code

    def waited() -> Flow:
        event = yield u.step.wait_for_event("event", event="beside", timeout=HOUR)
        return event.data

    def slept() -> Flow:
        yield u.step.sleep("nap", NAP)

    branches = [u.branch(fetched()), u.branch(waited()), u.branch(slept())]
    found = yield u.step.parallel(branches)
    yield u.do("a")
    return u.json(list(found))


def _nap(u: Use, name: str, minutes: int) -> Flow:
    yield u.step.sleep(f"nap {name}", minutes * NAP)
    return (yield u.do(name))


@cell(["quick", "last"], runs={"quick": 1, "last": 1})
def race(u: Use) -> Flow:
    won = yield u.step.race("who", (u.branch(_nap(u, "slow", 9)), u.branch(_nap(u, "quick", 1))))
    yield u.step.sleep("nap", NAP)
    return u.json([won, (yield u.do("last"))])


@cell(["good", "last"], runs={"bad": 1, "good": 1, "last": 1}, failures={"bad": 9})
def first(u: Use) -> Flow:
    won = yield u.step.first("who", (u.branch(_nap(u, "bad", 1)), u.branch(_nap(u, "good", 2))))
    return u.json([won, (yield u.do("last"))])


@cell(["timed out", "last"], runs={"last": 1}, on_loop=True)
def time_limit(u: Use) -> Flow:
    async def bounded() -> str:
        try:
            async with asyncio.timeout(0.001):
                await u.step.run("endless", asyncio.sleep, 60)
        except TimeoutError:
            return "timed out"
        return "ended"

    found = yield bounded()
    yield u.step.sleep("nap", NAP)
    return u.json([found, (yield u.do("last"))])
