"""Tools, one by one, before a wait and after it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import stephttp
from stephttp import ModelAdapter
from tests.matrix.cells import HOUR, NAP, SOON, Flow, cell
from tests.matrix.uses import Use


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


@cell("ok", when=("first",))
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


@cell({"n": 1}, runs={}, act=("signal", "replaced"), when=("first",))
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


@cell([404, "missing"], when=("first",))
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


@cell(25, runs={f"s{number}": 1 for number in range(25)}, when=("first",))
def many_steps(u: Use) -> Flow:
    found = 0
    for number in range(25):
        found += (yield u.do(f"s{number}")) == f"s{number}"
    yield u.step.sleep("nap", NAP)
    return u.json(found)


@cell(["run", True], runs={"a": 1}, when=("first",))
def current_run(u: Use) -> Flow:
    before = stephttp.current_run()
    kept = yield u.step.run("id", lambda: before.id)
    yield u.do("a")
    yield u.step.sleep("nap", NAP)
    now = stephttp.current_run()
    return u.json(["run", kept == now.id])
