"""Whole runs that wait for events, signals and other runs, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp._wire.signatures import verify
from stephttp.engine import VirtualClock

from .support import (
    DONE,
    KEY,
    OTHER,
    RUN,
    A,
    B,
    World,
    Z,
    answer,
    complete,
    new_run,
    sleep,
    step,
    until,
    world,
)


def event(id_: str = A, name: str = "go", **opts: Any) -> dict[str, Any]:
    return {"op": "WaitForEvent", "id": id_, "name": name, "opts": {"timeout": "20s", **opts}}


def signal(id_: str = A, name: str = "s1", **opts: Any) -> dict[str, Any]:
    return {"op": "WaitForSignal", "id": id_, "name": name, "opts": {"signal": name, **opts}}


def invoke(function: str = "child", **opts: Any) -> dict[str, Any]:
    opts = {"function_id": function, "payload": {"data": {"x": 1}}, **opts}
    return {"op": "InvokeFunction", "id": A, "opts": opts}


def sent(*ids: str) -> dict[str, Any]:
    opts = {"type": "step.sendEvent"}
    return step(B, {"ids": list(ids)}, name="sendEvent", opts=opts)


async def send(w: World, *events: dict[str, Any]) -> list[str]:
    response = await w.http.post("/e/k", json=list(events))
    assert response.status_code == 200, response.text
    await w.engine.idle()
    ids: list[str] = response.json()["ids"]
    return ids


async def test_an_event_ends_a_wait() -> None:
    async with world() as w:
        token = (await w.post(step(B), event()))["token"]
        assert (await w.run())["waiting_for"][0]["key"] == "go"
        await send(w, {"name": "other"})
        assert w.calls == []
        w.script = [answer([sleep(text="30m")]), answer(DONE)]
        await send(w, {"name": "go", "id": "mine", "data": {"n": 1}, "ts": 1795352529723})
        assert len(w.calls) == 1
        memo = {"data": {"n": 1}, "id": "mine", "name": "go", "ts": 1795352529723}
        assert await w.memos() == {B: {"data": 1}, A: memo}
        # A second one is too late, and so is the time that was set for the first.
        await send(w, {"name": "go"})
        assert await w.after(30) == []
        await w.after(1800)
        assert (await w.output(token)).status_code == 201


async def test_a_wait_for_an_event_ends_by_itself() -> None:
    async with world() as w:
        await w.post(event())
        assert await w.after(19.9) == []
        w.script = [answer([sleep()])]
        assert len(await w.after(0.1)) == 1
        assert await w.memos() == {A: None}
        await send(w, {"name": "go"})
        assert await w.memos() == {A: None}


async def test_an_event_at_the_very_end_is_too_late() -> None:
    """The clock stands where the wait ends, but the engine has not looked yet."""
    async with world() as w:
        await w.post(event())
        w.clock.advance(20)
        w.script = [answer([sleep()])]
        await send(w, {"name": "go"})
        assert await w.memos() == {A: None}


async def test_conditions_choose_among_runs_and_events() -> None:
    same = "async.data.k == event.data.query_params"
    async with world() as w:
        for run_id, k in ((RUN, "k=1"), (OTHER, "k=2")):
            await w.post(event(**{"if": same}), run_id=run_id, data={"query_params": k})
        await send(w, {"name": "go", "data": {"k": "k=3"}}, {"name": "go", "data": {}})
        assert w.calls == []
        w.script = [answer([sleep(text="1h")])]
        await send(w, {"name": "go", "data": {"k": "k=2"}}, {"name": "go", "data": {"k": "k=2"}})
        assert [call.headers["x-run-id"] for call in w.calls] == [OTHER]
        w.script = [answer([sleep(text="1h")])]
        await send(w, {"name": "go", "data": {"k": "k=1"}})
        assert (await w.memos())[A]["data"] == {"k": "k=1"}


async def test_one_event_ends_all_waits_that_it_fits() -> None:
    async with world() as w:
        await w.post(event(A), event(B), event(Z, "else"))
        await w.post(event(A), run_id=OTHER)
        w.script = [answer([sleep(text="1h")]), answer([sleep(text="1h")])]
        await send(w, {"name": "go"})
        assert sorted(c.headers["x-run-id"] for c in w.calls) == sorted([RUN, OTHER])
        assert set(await w.memos()) == {A, B}


async def test_a_repeated_id_ends_no_second_wait() -> None:
    async with world() as w:
        await w.post(event(A))
        w.script = [answer([event(B, timeout="3d")])]
        (first,) = await send(w, {"name": "go", "id": "same"})
        (second,) = await send(w, {"name": "go", "id": "same"})
        assert first != second
        assert set(await w.memos()) == {A}
        listed = (await w.http.get("/v1/events")).json()["data"]
        assert [e["internal_id"] for e in listed] == [second, first]
        w.script = [answer(DONE)]
        await w.after(86_400)
        await send(w, {"name": "go", "id": "same"})  # A day later it is news again.
        assert (await w.run())["status"] == "Completed"


async def test_an_event_that_was_sent_by_the_same_batch_is_seen() -> None:
    async with world() as w:
        older = await send(w, {"name": "go", "data": {"n": 0}})
        await w.after(1)
        ids = await send(w, {"name": "else"}, {"name": "go", "data": {"n": 1}}, {"name": "go"})
        w.script = [answer([sleep(text="1h")])]
        await w.after(1)
        await w.post(sent(*ids), event())
        assert len(await w.after(0)) == 1
        assert (await w.memos())[A]["data"] == {"n": 1}
        # What looks like an id but was not sent by a step is none.
        await w.post(step(B, {"ids": older}), event(), run_id=OTHER)
        assert (await w.run(OTHER))["waiting_for"][0]["kind"] == "event"


@pytest.mark.parametrize(
    "shape", [lambda id_: id_, lambda id_: [id_], lambda id_: {"ids": [id_], "more": 1}]
)
async def test_the_shapes_of_sent_ids(shape: Callable[[str], Any]) -> None:
    async with world() as w:
        (id_,) = await send(w, {"name": "go"})
        w.script = [answer(DONE)]
        await w.post(step(B, shape(id_), name="sendEvent"), event())
        assert len(await w.after(0)) == 1


async def test_looking_back() -> None:
    async with world(event_lookback=5.0) as w:
        await send(w, {"name": "go", "data": {"n": 1}})
        await w.after(2)
        await send(w, {"name": "go", "data": {"n": 2}}, {"name": "go", "data": {"n": 3}})
        await w.after(4)
        w.script = [answer([sleep(text="1h")])]
        await w.post(event(**{"if": "async.data.n != 2"}))
        assert len(await w.after(0)) == 1
        assert (await w.memos())[A]["data"] == {"n": 3}
        await w.post(event(name="else"), run_id="01M81KWY4BC292NS2P7Q9MNAN9")
        assert await w.after(0) == []
        # An answer looks back, too; and what was seen by one wait can be seen by another.
        w.script = [answer([event(timeout="1h")]), answer(DONE)]
        await w.post(sleep(text="0s"), run_id=OTHER)
        assert len(await w.after(0)) == 2
    async with world() as w:
        await send(w, {"name": "go"})
        await w.after(1)
        await w.post(event())
        assert await w.after(0) == []


class Slow(httpx2.AsyncBaseTransport):
    """The endpoint of `w`, which answers when the gate is open."""

    def __init__(self, w: World) -> None:
        self.w, self.gate = w, asyncio.Event()
        w.reach(self)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.w.calls.append(request)
        await self.gate.wait()
        reply = self.w.script.pop(0)
        assert isinstance(reply, httpx2.Response)
        return reply


async def test_an_event_during_a_call_is_not_lost() -> None:
    """The endpoint has read its memos already when the event comes, and then waits again."""
    async with world() as w:
        await w.post(event(A, timeout="1h"), sleep(Z, "1s"))
        slow = Slow(w)
        w.script = [answer([event(A, timeout="1h"), sleep(B, "1h")]), answer(DONE)]
        w.clock.advance(1)
        await until(lambda: w.calls)
        response = await w.http.post("/e/k", json={"name": "go", "data": {"n": 1}})
        assert response.status_code == 200
        assert (await w.memos())[A]["data"] == {"n": 1}
        assert len(w.calls) == 1
        slow.gate.set()
        await w.engine.idle()
        assert len(w.calls) == 2
        assert (await w.run())["status"] == "Completed"


async def test_an_event_while_a_failed_call_waits_does_not_cut_that_short() -> None:
    async with world() as w:
        await w.post(event(A), sleep(Z, "1s"))
        w.script = [httpx2.ConnectError("down")]
        await w.after(1)
        await send(w, {"name": "go"})
        assert len(w.calls) == 1
        w.script = [answer(DONE)]
        await w.after(1)
        assert (await w.run())["status"] == "Completed"


async def test_signals() -> None:
    async with world() as w:
        await w.post(signal())
        w.script = [answer([signal(B, "s2")])]
        response = await w.http.post("/v1/signals", json={"signal": "s1", "data": {"n": 1}})
        assert (response.status_code, response.json()["data"]) == (200, {"run_id": RUN})
        await w.engine.idle()
        assert await w.memos() == {A: {"data": {"signal": "s1", "data": {"n": 1}}}}
        again = await w.http.post("/v1/signals", json={"signal": "s1"})
        assert (again.status_code, again.json()["error"]) == (404, "No signal found")
        w.script = [answer(DONE)]
        assert len(await w.after(365 * 86_400)) == 1
        assert (await w.run())["status"] == "Completed"


async def test_a_signal_that_somebody_waits_for_already() -> None:
    async with world() as w:
        await w.post(signal(timeout="1h"))
        w.script = [answer([sleep("c" * 40, "2h")])]
        await w.post(signal(conflict="fail"), run_id=OTHER)
        await w.engine.idle()
        memos = (await w.http.get(f"/v0/runs/{OTHER}/actions")).json()
        assert memos[A]["error"]["name"] == "SignalConflictError"
        third = "01M81KWY4BC292NS2P7Q9MNAN9"
        await w.post(signal(conflict="replace"), run_id=third)
        w.script = [answer(DONE), answer([sleep(text="1h")])]
        response = await w.http.post("/v1/signals", json={"signal": "s1"})
        assert response.json()["data"] == {"run_id": third}
        assert [c.headers["x-run-id"] for c in await w.after(3600)] == [third, RUN]
        assert await w.memos() == {A: None}


async def child_known(w: World, **data: Any) -> None:
    """Make the endpoint known by a run that has ended."""
    about = {"fn": "child", "path": "/child", "method": "POST", "query_params": "secret=1", **data}
    run_id = "01M81KWY4BC292NS2P7Q9MNCH0"
    await w.post(complete(1), run_id=run_id, data=about, retries=1, request_version=2)


async def test_an_invocation() -> None:
    async with world(signing_keys=(KEY,)) as w:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        await child_known(w)
        w.script = [answer([sleep()])]
        await w.post(invoke())
        (call,) = await w.after(0)
        child = call.headers["x-run-id"]
        assert (call.method, str(call.url)) == ("POST", "http://app.test/child")
        assert (call.content, call.headers["content-type"]) == (b'{"x":1}', "application/json")
        assert call.headers["x-inngest-req-version"] == "2"
        assert verify(call.headers["x-inngest-signature"], call.content, [KEY], w.clock.now())
        actions = await w.http.get(f"/v0/runs/{child}/actions")
        assert actions.json() == {}
        (began,) = (await w.http.get(f"/v0/runs/{child}/batch")).json()
        assert began["name"] == "inngest/http.request"
        assert (await w.run(child))["invoked_by"] == f"{RUN}.{A}"
        assert (await w.run())["waiting_for"][0]["key"] == child
        w.script = [answer(DONE), answer([sleep(text="1h")])]
        assert [c.headers["x-run-id"] for c in await w.after(5)] == [child, RUN]
        result = {"status": 201, "headers": {"x-a": "b"}, "body": "hi"}
        assert await w.memos() == {A: {"data": result}}


@pytest.mark.parametrize("function", ["POST /orders", None])
async def test_functions_are_known_by_slug_and_by_id_and_the_own_app_goes_first(
    function: str | None,
) -> None:
    async with world() as w:
        made = await w.post(complete(1), run_id=OTHER)
        elsewhere = {"domain": "http://other.test"}
        await w.after(1)
        await w.post(complete(1), run_id="01M81KWY4BC292NS2P7Q9MNCH0", data=elsewhere)
        w.script = [answer(DONE), answer(DONE)]
        await w.post(invoke(function or made["fn_id"]))
        calls = await w.after(0)
        assert [call.url.host for call in calls] == ["app.test", "app.test"]


async def test_an_invoked_run_that_fails_is_cancelled_or_is_unknown() -> None:
    async with world() as w:
        await child_known(w)
        w.script = [answer(complete({"status": 503, "body": "no"})), answer([sleep(text="1h")])]
        await w.post(invoke())
        await w.after(0)
        error = (await w.memos())[A]["error"]
        assert (error["name"], error["data"]["body"]) == ("HTTPError", "no")

        await w.post(invoke(), run_id=OTHER)
        w.script = [answer([sleep(text="2h")])]
        await w.after(0)
        child = (await w.run(OTHER))["waiting_for"][0]["key"]
        w.script = [answer([sleep(text="2h")])]
        assert (await w.http.delete(f"/v1/runs/{child}")).status_code == 200
        await w.engine.idle()
        actions = (await w.http.get(f"/v0/runs/{OTHER}/actions")).json()
        assert actions[A]["error"]["name"] == "CancelledError"

        third = "01M81KWY4BC292NS2P7Q9MNAN9"
        w.script = [answer([sleep(text="2h")])]
        await w.post(invoke("nobody"), run_id=third)
        await w.after(0)
        actions = (await w.http.get(f"/v0/runs/{third}/actions")).json()
        message = actions[A]["error"]["message"]
        assert message.startswith("could not find function with ID: nobody; endpoints are known")
        steps = (await w.http.get(f"/v1/runs/{third}/steps")).json()["data"]
        assert steps[0]["status"] == "Failed"


async def test_an_invoked_run_that_takes_too_long_goes_on_alone() -> None:
    async with world() as w:
        await child_known(w)
        w.script = [answer([sleep()])]
        await w.post(invoke(timeout="2s"))
        (call,) = await w.after(0)
        child = call.headers["x-run-id"]
        w.script = [answer([sleep(text="1h")])]
        assert [c.headers["x-run-id"] for c in await w.after(2)] == [RUN]
        assert (await w.memos())[A]["error"]["name"] == "InngestInvokeTimeoutError"
        w.script = [answer(DONE)]
        assert [c.headers["x-run-id"] for c in await w.after(3)] == [child]
        assert (await w.memos())[A]["error"]["name"] == "InngestInvokeTimeoutError"
        assert (await w.run(child))["status"] == "Completed"


async def test_an_invoked_run_has_the_retries_of_its_endpoint() -> None:
    async with world() as w:
        await child_known(w)
        failing = httpx2.Response(500, headers={"x-inngest-sdk": "t"}, json={"message": "bad"})
        w.script = [failing, failing, answer([sleep(text="1h")])]
        await w.post(invoke())
        assert len(await w.after(0)) == 1
        assert len(await w.after(1)) == 2
        assert (await w.memos())[A]["error"]["message"] == "bad"


async def test_a_cancelled_run_is_over_for_everybody() -> None:
    async with world() as w:
        token = (await w.post(sleep(), event()))["token"]
        reader = asyncio.create_task(w.output(token))
        await until(lambda: len(w.engine.waiters))
        response = await w.http.delete(f"/v1/runs/{RUN}")
        assert (response.status_code, response.content) == (200, b"")
        assert (await reader).status_code == 409
        assert (await w.run())["status"] == "Cancelled"
        assert (await w.http.get(f"/v1/runs/{RUN}/jobs")).json()["data"] == []
        assert (await w.http.get(f"/v0/runs/{RUN}/actions")).status_code == 410
        await send(w, {"name": "go"})
        assert await w.after(100) == []
        assert (await w.http.delete(f"/v1/runs/{RUN}")).status_code == 200
        assert (await w.http.delete(f"/v0/runs/{RUN}")).status_code == 409
        for version in ("v0", "v1"):
            assert (await w.http.delete(f"/{version}/runs/{OTHER}")).status_code == 404
            assert (await w.http.delete(f"/{version}/runs/x")).status_code == 400
        await w.post(step(), run_id=OTHER)
        assert (await w.http.delete(f"/v0/runs/{OTHER}")).status_code == 204
        assert (await w.run(OTHER))["status"] == "Cancelled"


async def test_a_run_that_is_cancelled_during_a_call_stays_cancelled() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        slow = Slow(w)
        w.script = [answer(DONE)]
        w.clock.advance(1)
        await until(lambda: w.calls)
        assert (await w.http.delete(f"/v1/runs/{RUN}")).status_code == 200
        slow.gate.set()
        await w.engine.idle()
        assert (await w.run())["status"] == "Cancelled"
        assert await w.after(100) == []


async def test_waits_survive_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(clock, tmp_path / "db") as w:
        await child_known(w)
        w.script = [answer([sleep(text="1h")])]
        await w.post(event(**{"if": "async.data.ok"}), signal(B), invoke() | {"id": Z})
        await w.after(0)
    async with world(clock, tmp_path / "db") as w:
        w.script = [answer([]), answer([])]
        await send(w, {"name": "go", "data": {"ok": True}})
        await w.http.post("/v1/signals", json={"signal": "s1"})
        await w.engine.idle()
        assert set(await w.memos()) == {A, B}
        w.script = [answer(DONE), answer(DONE)]
        await w.after(3600)
        assert (await w.run())["status"] == "Completed"


async def test_a_bad_wait_in_an_answer_fails_its_step() -> None:
    async with world() as w:
        w.script = [answer([event(timeout="soon")]), answer(DONE)]
        await w.post(sleep())
        await w.after(5)
        steps = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert "opts.timeout: 'soon' is not a duration" in steps[1]["error"]["message"]
        assert (await w.run())["status"] == "Completed"


async def test_a_bad_condition_in_an_answer_fails_its_step() -> None:
    async with world() as w:
        w.script = [answer([event(B, **{"if": "async.x ="})]), answer([sleep("c" * 40, "1h")])]
        await w.post(sleep())
        await w.after(5)
        error = (await w.memos())[B]["error"]
        assert error["message"].startswith("step 'go': if: not a valid CEL expression")
        w.script = [answer(DONE)]
        await w.after(3600)
        assert (await w.run())["status"] == "Completed"


async def test_a_first_checkpoint_that_is_repeated_invokes_once() -> None:
    async with world() as w:
        await child_known(w)
        w.script = [answer([sleep(text="1h")])]
        body = new_run(invoke())
        for _ in range(2):
            assert (await w.http.post("/v1/checkpoint", json=body)).status_code == 200
        await w.after(0)
        assert len(w.calls) == 1
        assert len((await w.http.get("/v1/runs")).json()["data"]) == 3


async def test_an_invoked_run_ends_even_if_nobody_remembers_who_invoked_it() -> None:
    async with world() as w:
        await child_known(w)
        w.script = [answer([sleep()])]
        await w.post(invoke(timeout="1h"))
        (call,) = await w.after(0)

        def forget(connection: sqlite3.Connection) -> None:
            for table in ("runs", "steps", "timers"):
                connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (RUN,))

        await w.engine.store.write(forget)
        w.script = [answer(DONE)]
        await w.after(5)
        assert (await w.run(call.headers["x-run-id"]))["status"] == "Completed"
