"""What people do to runs: run them again, from a step on, let them go on, many at once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp._wire.ids import CAPSULE
from stephttp.engine import bulk
from stephttp.engine.bulk import Bulk
from stephttp.engine.live.changes import MOST_RUNS, Changes
from stephttp.engine.reading import RunFilter
from stephttp.engine.reading.run_list import matching

from .support import (
    DONE,
    OTHER,
    RUN,
    A,
    B,
    World,
    Z,
    answer,
    complete,
    sleep,
    step,
    step_error,
    world,
)

PLAIN: dict[str, Any] = {}
MISSING = "01M81KWYZZZZZZZZZZZZZZZZZZ"


def run_id(number: int) -> str:
    return f"{RUN[:-1]}{number}"


async def post(w: World, path: str, body: Any = PLAIN) -> Any:
    response = await w.http.post(f"/v1/stephttp{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def rerun(w: World, **edit: Any) -> str:
    made: str = (await post(w, f"/runs/{RUN}/rerun", edit))["run_id"]
    return made


async def memos(w: World, of: str) -> Any:
    return (await w.http.get(f"/v0/runs/{of}/actions")).json()


async def detail(w: World, of: str) -> Any:
    return (await w.http.get(f"/v1/stephttp/runs/{of}")).json()["data"]


async def test_a_rerun_is_the_same_request_as_a_new_run() -> None:
    async with world(script=[answer([step(B), sleep(Z, "1d")])]) as w:
        await w.post(step(A, 1), DONE, retries=2, request_version=2)
        made = await rerun(w)
        await w.engine.idle()
        (call,) = w.calls
        assert (call.method, str(call.url), call.content) == (
            "POST", "http://app.test/orders?k=1", b'{"a": 1}',
        )  # fmt: skip
        assert call.headers["x-run-id"] == made
        assert await memos(w, made) == {B: {"data": 1}}
        old, new = await detail(w, RUN), await detail(w, made)
        assert (old["reruns"], new["rerun_of"]) == ([made], RUN)
        assert (new["retries"], new["event_id"], new["state"]) == (2, old["event_id"], "waiting")
        listed = (await w.http.get(f"/v1/runs?rerun_of={RUN}")).json()["data"]
        assert [run["run_id"] for run in listed] == [made]


async def test_a_rerun_may_have_another_body() -> None:
    async with world(script=[answer(DONE)]) as w:
        await w.post(DONE)
        await rerun(w, body=b64encode(b"[2]").decode())
        await w.engine.idle()
        assert w.calls[0].content == b"[2]"


async def test_a_rerun_from_a_step_knows_the_steps_before_it() -> None:
    first = [step(A, 1), step(B, 2), sleep(Z, "1s")]
    async with world(
        script=[answer([sleep("d" * 40, "1d")]), answer([sleep("d" * 40, "1d")])]
    ) as w:
        await w.post(*first, DONE)
        made = await rerun(w, step_id=B)
        assert await memos(w, made) == {A: {"data": 1}}
        given = await rerun(w, step_id=B, output={"x": 3})
        assert await memos(w, given) == {A: {"data": 1}, B: {"data": {"x": 3}}}
        await w.engine.idle()
        copied = (await detail(w, given))["step_list"]
        assert [(s["step_id"], s["attempts"], s["output"]) for s in copied[:2]] == [
            (A, 0, 1), (B, 0, {"x": 3}),
        ]  # fmt: skip
        # They did not happen in this run.
        assert not [s for s in (await detail(w, given))["spans"] if s["step_id"] in (A, B)]


async def test_an_edited_input_is_handed_out_until_the_step_has_run() -> None:
    async with world(script=[answer([step(B, "ran"), sleep(Z, "1d")])]) as w:
        await w.post(step(A, 1), step(B, 2), DONE)
        made = await rerun(w, step_id=B, input=[{"y": 1}])
        assert await memos(w, made) == {A: {"data": 1}, B: {"input": [{"y": 1}]}}
        await w.engine.idle()
        assert await memos(w, made) == {A: {"data": 1}, B: {"data": "ran"}}
        (edited,) = [s for s in (await detail(w, made))["step_list"] if s["step_id"] == B]
        assert (edited["edited"], edited["output"], edited["attempts"]) == ([{"y": 1}], "ran", 1)


async def test_the_output_of_a_wait_is_the_event_itself() -> None:
    wait = {"op": "WaitForEvent", "id": Z, "name": "paid", "opts": {"timeout": "1d"}}
    async with world() as w:
        await w.post(step(A), wait)
        made = await rerun(w, step_id=Z, output={"name": "paid", "data": {"by": "hand"}})
        assert (await memos(w, made))[Z] == {"name": "paid", "data": {"by": "hand"}}
        w.script = [answer(DONE)]


async def test_a_capsule_tells_for_which_run_it_was_sealed() -> None:
    capsule = {"op": "StepRun", "id": CAPSULE, "name": "r", "data": {"sealed": "AAAA", "x": 1}}
    waiting = answer([sleep("e" * 40, "1d")])
    async with world(script=[waiting, waiting]) as w:
        await w.post(capsule, sleep(Z, "1d"))
        made = await rerun(w)
        kept = (await memos(w, made))[CAPSULE]["data"]
        assert kept == {"sealed": "AAAA", "x": 1, "run_id": RUN}
        again = (await post(w, f"/runs/{made}/rerun"))["run_id"]
        assert (await memos(w, again))[CAPSULE]["data"]["run_id"] == RUN
        await w.engine.idle()


@pytest.mark.parametrize(
    ("edit", "status", "message"),
    [
        ({"step_id": "nothing"}, 404, "step_id: run 01M8"),
        ({"step_id": CAPSULE}, 404, "step_id: run 01M8"),
        ({"output": 1}, 400, "step_id: must name"),
        ({"step_id": A, "output": 1, "input": [2]}, 400, "input: a step that is given"),
        ({"step_id": A, "input": {"a": 1}}, 400, "input: must be an array"),
        ({"step_id": Z, "input": [1]}, 400, "input: step"),
        ({"body": "!"}, 400, "body: not base64"),
        ({"step_id": 3}, 400, "step_id: Expected `str | null`"),
    ],
)
async def test_edits_that_do_not_fit(edit: Any, status: int, message: str) -> None:
    capsule = {"op": "StepRun", "id": CAPSULE, "name": "r", "data": {}}
    async with world() as w:
        await w.post(capsule, step(A), sleep(Z, "1d"))
        response = await w.http.post(f"/v1/stephttp/runs/{RUN}/rerun", json=edit)
        assert (response.status_code, response.json()["error"][: len(message)]) == (status, message)
        assert len((await w.http.get("/v1/runs")).json()["data"]) == 1


async def test_a_hidden_body_cannot_be_edited() -> None:
    capsule = {"op": "StepRun", "id": CAPSULE, "name": "r", "data": {"sealed": "AAAA"}}
    async with world() as w:
        await w.post(capsule, sleep(Z, "1d"), data={"body": None})
        response = await w.http.post(f"/v1/stephttp/runs/{RUN}/rerun", json={"body": "YQ=="})
        assert response.status_code == 400
        assert response.json()["error"].startswith("body: it is kept from the engine")


async def test_a_sleeping_run_goes_on_now() -> None:
    async with world(script=[answer([step(B), sleep("d" * 40, "1d")])]) as w:
        await w.post(step(A), sleep(Z, "1d"))
        assert await post(w, f"/runs/{RUN}/resume") == {"waits": 1}
        await w.engine.idle()
        assert len(w.calls) == 1
        w.script = [answer(DONE)]
        assert await post(w, f"/runs/{RUN}/resume", {"step_id": "d" * 40}) == {"waits": 1}
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"


async def test_what_failed_is_tried_again_now_and_events_are_still_waited_for() -> None:
    wait = {"op": "WaitForEvent", "id": Z, "name": "paid", "opts": {"timeout": "1d"}}
    async with world(script=[answer([step(B)]), answer([])]) as w:
        await w.post(step(A), wait, step_error(B), retries=2)
        assert await post(w, f"/runs/{RUN}/resume") == {"waits": 1}
        await w.engine.idle()
        (left,) = (await detail(w, RUN))["waiting_for"]
        assert left["key"] == "paid"
        # Asked for by name, the wait ends as if it had lasted long enough.
        w.script = [answer(DONE)]
        await post(w, f"/runs/{RUN}/resume", {"step_id": Z})
        await w.engine.idle()
        steps = (await detail(w, RUN))["step_list"]
        assert {s["step_id"]: (s["state"], s["output"]) for s in steps}[Z] == ("completed", None)


@pytest.mark.parametrize("step_id", [None, "nothing"])
async def test_runs_that_do_not_wait_cannot_be_resumed(step_id: str | None) -> None:
    async with world() as w:
        await w.post(DONE)
        await w.post(sleep(Z, "1d"), run_id=run_id(1))
        body = {"step_id": step_id}
        for run, status in (
            (RUN, 409),
            (run_id(1), 200 if step_id is None else 409),
            (MISSING, 404),
        ):
            w.script = [answer(DONE)]
            response = await w.http.post(f"/v1/stephttp/runs/{run}/resume", json=body)
            assert response.status_code == status, response.text
            await w.engine.idle()


async def test_many_runs_are_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_PORTION", 2)
    async with world() as w:
        for number in range(5):
            await w.post(sleep(Z, "1d"), run_id=run_id(number))
        await w.post(DONE, run_id=run_id(5))
        await w.post(sleep(Z, "1d"), run_id=run_id(6), data={"path": "/other"})
        assert await post(w, "/runs/cancel?endpoint=POST /orders&limit=3") == {
            "count": 3, "more": True,
        }  # fmt: skip
        assert await post(w, "/runs/cancel?endpoint=POST /orders") == {"count": 2, "more": False}
        states = {
            run["run_id"]: run["state"] for run in (await w.http.get("/v1/runs")).json()["data"]
        }
        assert [states[run_id(number)] for number in range(7)] == [
            *["cancelled"] * 5, "completed", "waiting",
        ]  # fmt: skip
        assert await post(w, "/runs/cancel?status=failed") == {"count": 0, "more": False}
        assert await post(w, "/runs/cancel?all=true") == {"count": 1, "more": False}


async def test_many_runs_are_run_again_but_not_their_reruns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "_PORTION", 2)
    bad = complete({"status": 500, "headers": {}, "body": ""})
    async with world(script=[answer(bad)] * 5) as w:
        for number in range(5):
            await w.post(bad, run_id=run_id(number))
        assert await post(w, "/runs/rerun?status=failed") == {"count": 5, "more": False}
        await w.engine.idle()
        assert len((await w.http.get("/v1/runs?status=failed")).json()["data"]) == 10


async def test_runs_that_end_or_go_while_others_are_looked_for_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        await w.post(sleep())
        await w.post(sleep(), run_id=OTHER)
        look = w.engine.store.browse

        async def meanwhile(unit: Any) -> Any:
            found = await look(unit)
            await w.engine.cancel(RUN)
            return found

        monkeypatch.setattr(w.engine.store, "browse", meanwhile)
        assert await w.engine.bulk.cancel(RunFilter()) == Bulk(1, more=False)

        async def gone(unit: Any) -> Any:
            found = await look(unit)
            delete = partial(_delete, run_id=RUN)
            await w.engine.store.write(delete)
            return found

        monkeypatch.setattr(w.engine.store, "browse", gone)
        assert await w.engine.bulk.rerun(RunFilter()) == Bulk(1, more=False)
        w.script = [answer([DONE])]
        await w.after(1)


def _delete(connection: sqlite3.Connection, run_id: str) -> None:
    for table in ("links", "history", "timers", "spans", "steps", "runs"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))


async def test_orders_look_for_runs_where_they_keep_no_work_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(path=tmp_path / "db") as w:
        await w.post(sleep())
        threads = set()

        def watched(*values: Any, **named: Any) -> Any:
            threads.add(threading.current_thread().name)
            return matching(*values, **named)

        monkeypatch.setattr("stephttp.engine.bulk.matching", watched)
        assert await w.engine.bulk.cancel(RunFilter(text="orders")) == Bulk(1, False)
        assert threads == {"stephttp-browser"}


@pytest.mark.parametrize("what", ["cancel", "rerun"])
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "all: an order without a filter"), ("all=true&limit=0", "limit: '0'"),
        ("all=true&limit=10001", "limit: '10001'"), ("status=x", "status: 'x'"),
        ("text=" + "x" * 1001, "text: longer"),
    ],
)  # fmt: skip
async def test_orders_that_are_not_clear(what: str, query: str, message: str) -> None:
    async with world() as w:
        await w.post(sleep(Z, "1d"))
        response = await w.http.post(f"/v1/stephttp/runs/{what}?{query}")
        assert (response.status_code, response.json()["error"][: len(message)]) == (400, message)
        assert (await detail(w, RUN))["state"] == "waiting"


async def test_an_event_is_sent_by_hand() -> None:
    wait = {"op": "WaitForEvent", "id": Z, "name": "paid", "opts": {"event": "paid",
            "timeout": "1d"}}  # fmt: skip
    key = "signkey-test-" + "ab" * 16
    async with world(script=[answer(DONE)], signing_keys=(key,), event_keys=("secret",)) as w:
        w.http.headers["authorization"] = f"Bearer {key}"
        await w.post(wait)
        sent = await post(w, "/events", {"name": "paid", "data": {"a": 1}})
        await w.engine.idle()
        assert (await detail(w, RUN))["events"][0]["internal_id"] == sent["internal_id"]
        response = await w.http.post("/v1/stephttp/events", json={"data": {}})
        assert (response.status_code, response.json()["error"]) == (400, "event name is empty")


async def test_changes_are_told_as_they_happen() -> None:
    async with world(script=[answer(DONE)], stream_lifetime=3600) as w:
        with w.engine.changes.listening() as listener:
            await w.post(sleep(Z, "5s"))
            assert (await listener.next()).run_ids == {RUN}
            await w.after(5)
            assert (await listener.next()).run_ids == {RUN}
            await w.http.post("/e/k", json={"name": "x"})
            changes = await listener.next()
            assert (changes.run_ids, changes.events, changes.lost) == (frozenset(), True, False)
            for number in range(MOST_RUNS + 1):
                w.engine.changes.publish([str(number)])
            changes = listener.take()
            assert (changes.run_ids, changes.lost) == (frozenset(), True)
            assert not listener.take()
        assert len(w.engine.changes) == 0


async def test_changes_over_http_end_with_the_engine() -> None:
    async with world(stream_lifetime=3600) as w:
        # The transport hands over an answer when it is whole, so the stream is read beside.
        reading = asyncio.create_task(w.http.get("/v1/stephttp/changes"))
        while not len(w.engine.changes):  # noqa: ASYNC110 - nobody tells when it has begun
            await asyncio.sleep(0)
        await w.post(DONE)
        await asyncio.sleep(0)
        w.engine.drain()
        lines = (await reading).text.split("\n\n")
        told = [line.partition("data: ")[2] for line in lines if "data: " in line]
        assert RUN in json.loads(told[0])["run_ids"]
        assert "event: over" in lines[-2]


async def test_who_comes_after_the_end_is_told_at_once() -> None:
    feed = Changes()
    feed.release()
    with feed.listening() as listener:
        assert (await listener.next()).over


async def test_who_listens_is_left_alone_while_nothing_changes() -> None:
    """The engine often looks for due work and finds none."""
    feed = Changes()
    with feed.listening() as listener:
        feed.publish([])
        assert (feed.published, listener.wake.is_set()) == (0, False)


async def test_reruns_of_a_failed_first_request_begin_with_a_call() -> None:
    """Whatever the SDK: the engine calls the endpoint as for a run that was invoked."""
    async with world(script=[httpx2.ConnectError("down"), answer(DONE)]) as w:
        await w.post(complete({"status": 500, "headers": {}, "body": ""}))
        made = await rerun(w)
        await w.engine.idle()
        assert (await detail(w, made))["state"] == "waiting"
        await w.after(5)
        assert (await detail(w, made))["state"] == "completed"
