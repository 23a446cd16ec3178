"""Steps and handlers that fail, and what is tried again."""

from __future__ import annotations

from datetime import timedelta

import stephttp
from tests.matrix.cells import HOUR, NAP, Flow, cell
from tests.matrix.uses import Use


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


@cell(..., 500, runs={"a": 1}, failures={"a": 9}, retries=5, when=("first",))
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
