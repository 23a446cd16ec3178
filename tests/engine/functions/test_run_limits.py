"""What cancels runs of functions: events (`cancel`), and time (`timeouts`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stephttp._wire.stored_state import RESENT_AFTER
from stephttp.engine.rules.functions.run_events import CANCELLED
from tests.engine.functions.queue import Queue, events
from tests.engine.functions.support import (
    body_of,
    config,
    fails,
    invoke,
    only,
    output,
    register,
    returns,
    send,
    step_run,
)
from tests.engine.support import A, B, World, answer, sleep, world

MATCH = "event.data.id == async.data.id"
HOURS = [sleep(B, "5h")]


def cancel(**more: Any) -> Any:
    return [{"event": "order/stopped", **more}]


async def detail(w: World, event_id: str) -> dict[str, Any]:
    run = await only(w, event_id)
    data: dict[str, Any] = (await w.http.get(f"/v1/stephttp/runs/{run['run_id']}")).json()["data"]
    return data


async def status(w: World, event_id: str) -> str:
    return str((await only(w, event_id))["status"])


@pytest.mark.parametrize(
    ("option", "data", "expected"),
    [
        (cancel(), {}, "Cancelled"),
        (cancel(**{"if": MATCH}), {"id": "o1"}, "Cancelled"),
        (cancel(**{"if": MATCH}), {"id": "o2"}, "Running"),
        (cancel(**{"if": MATCH}), {}, "Running"),
        (cancel(**{"if": "async.data.why == 'late'"}), {"why": "late"}, "Cancelled"),
        (cancel(**{"if": f"{MATCH} && async.data.n > 3"}), {"id": "o1", "n": 3}, "Running"),
        (cancel(**{"if": f"{MATCH} && async.data.n > 3"}), {"id": "o1", "n": 4}, "Cancelled"),
        (cancel(**{"if": "async.data.id in event.data.ids"}), {"id": "o3"}, "Cancelled"),
        (
            [{"event": "order/lost"}, {"event": "order/stopped", "if": MATCH}],
            {"id": "o1"},
            "Cancelled",
        ),
        ([{"event": "order/lost"}], {"id": "o1"}, "Running"),
    ],
)
async def test_events_that_cancel_a_run(option: Any, data: Any, expected: str) -> None:
    async with world(script=[answer(HOURS)]) as w:
        await register(w, config("shop-pack", "order/paid", cancel=option))
        event_id = await send(w, "order/paid", {"id": "o1", "ids": ["o3"]})
        await send(w, "order/stopped", data)
        assert await status(w, event_id) == expected
        # Nothing is called any more, or everything continues.
        w.script = [returns("packed")]
        assert len(await w.after(5 * 3600)) == (expected == "Running")


async def test_what_came_before_the_run_does_not_cancel_it() -> None:
    async with world(script=[answer(HOURS)], event_lookback=60.0) as w:
        await register(w, config("shop-pack", "order/stopped", cancel=cancel()))
        await send(w, "order/stopped", {"n": 1})
        event_id = (await w.http.get("/v1/events")).json()["data"][0]["internal_id"]
        assert await status(w, event_id) == "Running"
        w.script = [answer(HOURS)]
        await send(w, "order/stopped", {"n": 2})
        assert await status(w, event_id) == "Cancelled"


async def test_a_run_is_not_cancelled_when_that_is_too_late() -> None:
    async with world(script=[answer(HOURS)] * 2) as w:
        await register(w, config("shop-pack", "order/paid", cancel=cancel(timeout="1m")))
        early, late = [await send(w, "order/paid", {"n": n}) for n in range(2)]
        await w.after(59)
        assert len((await detail(w, late))["limits"]) == 1
        w.script = []
        await w.after(1)
        assert (await detail(w, late))["limits"] == []
        await send(w, "order/stopped")
        assert [await status(w, one) for one in (early, late)] == ["Running"] * 2


async def test_an_event_cancels_all_runs_that_it_is_for_and_no_others() -> None:
    """Also if they are more than one transaction looks at."""
    async with world(script=[answer(HOURS)] * 130) as w:
        await register(
            w, config("shop-pack", "order/paid", cancel=cancel(**{"if": "event.data.n < 120"}))
        )
        ids = await events(w, *({"n": n} for n in range(130)), name="order/paid")
        await w.engine.idle()
        await send(w, "order/stopped")
        statuses = [await status(w, one) for one in ids]
        assert statuses == ["Cancelled"] * 120 + ["Running"] * 10


async def test_an_event_that_came_in_time_cancels_though_it_is_looked_at_later(
    tmp_path: Path,
) -> None:
    path, few = tmp_path / "db", "event.data.n < 110"
    async with world(path=path, script=[answer(HOURS)] * 120) as w:
        clock = w.clock
        option = cancel(**{"if": few}, timeout="1m")
        await register(w, config("shop-pack", "order/paid", cancel=option))
        ids = await events(w, *({"n": n} for n in range(120)), name="order/paid")
        await w.engine.idle()
        await w.engine._deliverer.stop()
        await w.http.post("/e/key", json={"name": "order/stopped"})
        clock.advance(61)
        await w.engine.executor.idle()
        assert await status(w, ids[0]) == "Running"
    # The engine is started again before it has asked any run.
    async with world(clock, path) as w:
        await w.engine.idle()
        statuses = [await status(w, one) for one in ids]
        assert statuses == ["Cancelled"] * 110 + ["Running"] * 10
        await w.after(1)
        assert (await detail(w, ids[-1]))["limits"] == []


async def test_a_cancelled_run_survives_a_restart_as_such(tmp_path: Path) -> None:
    path, clock = tmp_path / "db", None
    option = cancel(**{"if": MATCH})
    async with world(path=path, script=[answer(HOURS)] * 2) as w:
        clock = w.clock
        await register(w, config("shop-pack", "order/paid", cancel=option))
        one, other = [await send(w, "order/paid", {"id": id_}) for id_ in ("o1", "o2")]
    async with world(clock, path) as w:
        await send(w, "order/stopped", {"id": "o1"})
    async with world(clock, path) as w:
        assert [await status(w, id_) for id_ in (one, other)] == ["Cancelled", "Running"]


async def test_an_event_that_is_for_a_wait_as_well_cancels() -> None:
    wait = {"op": "WaitForEvent", "id": A, "name": "order/stopped", "opts": {"timeout": "1h"}}
    async with world(script=[answer([wait])]) as w:
        await register(w, config("shop-pack", "order/paid", cancel=cancel()))
        event_id = await send(w, "order/paid")
        await send(w, "order/stopped")
        assert await status(w, event_id) == "Cancelled"
        assert len(w.calls) == 1


async def test_a_run_that_is_being_called_is_cancelled_and_its_answer_is_nothing() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(w, config("shop-pack", "order/paid", cancel=cancel()))
        (event_id,) = await events(w, {"n": 1}, name="order/paid")
        await queue.settled()
        assert list(queue.open) == [1]
        await events(w, {"n": 2}, name="order/stopped")
        await queue.end(1)
        run = await only(w, event_id)
        assert (run["status"], run["output"]) == ("Cancelled", "")


async def test_a_run_that_waits_for_its_turn_too_long_is_cancelled() -> None:
    async with world() as w:
        queue = Queue(w)
        limits: dict[str, Any] = {"concurrency": 1, "timeouts": {"start": "10s"}}
        await register(w, config("shop-pack", "go", **limits))
        ids = await events(w, {"n": 1}, {"n": 2})
        await queue.settled()
        w.clock.advance(10)
        await queue.settled()
        ids += await events(w, {"n": 3})
        await queue.end(1)
        assert list(queue.open) == [3]
        await queue.end(3)
        statuses = [await status(w, one) for one in ids]
        assert statuses == ["Completed", "Cancelled", "Completed"]


async def test_the_run_that_waits_for_a_cancelled_one_gets_an_error() -> None:
    script = [answer([invoke()]), answer(HOURS), returns("caught")]
    async with world(script=script) as w:
        await register(
            w, config("shop-parent", "go"), config("shop-child", "never", cancel=cancel())
        )
        event_id = await send(w, "go")
        await send(w, "order/stopped")
        assert body_of(w.calls[2])["steps"][A]["error"]["name"] == "CancelledError"
        assert output(await only(w, event_id)) == "caught"


async def test_a_run_that_was_not_called_in_time_is_cancelled(tmp_path: Path) -> None:
    """Here because the engine was away."""
    path = tmp_path / "db"
    timeouts = {"start": "10s"}
    async with world(path=path) as w:
        clock = w.clock
        await register(w, config("shop-pack", "order/paid", timeouts=timeouts))
        await register(w, config("out-gone", CANCELLED), appname="out", url="http://out.test/x")
        w.engine.drain()
        late = (await w.http.post("/e/key", json={"name": "order/paid"})).json()["ids"][0]
        clock.advance(9)
        early = (await w.http.post("/e/key", json={"name": "order/paid"})).json()["ids"][0]
    clock.advance(1)
    async with world(clock, path, script=[returns(1)] * 2) as w:
        await w.after(RESENT_AFTER)
        run = await detail(w, late)
        assert (run["status"], await status(w, early)) == ("Cancelled", "Completed")
        assert "timeouts.start" in run["last_error"]
        assert len(w.calls) == 2  # one is of `out-gone`


async def test_a_run_that_was_called_in_time_may_take_any_time() -> None:
    async with world(script=[fails(), answer([sleep(B, "30s")]), returns(1)]) as w:
        await register(w, config("shop-pack", "go", timeouts={"start": "1s"}))
        event_id = await send(w, "go")
        assert (await detail(w, event_id))["limits"] == []
        await w.after(10)
        await w.after(60)
        assert await status(w, event_id) == "Completed"


async def test_a_run_that_does_not_end_in_time_is_cancelled() -> None:
    async with world(script=[answer([sleep(B, "30s")]), answer([step_run()])]) as w:
        timeouts = {"start": "5s", "finish": "40s"}
        await register(w, config("shop-pack", "go", timeouts=timeouts))
        await register(w, config("o-gone", CANCELLED), appname="o", url="http://o.test/x")
        event_id = await send(w, "go")
        (limit,) = (await detail(w, event_id))["limits"]
        assert (limit["kind"], limit["due_at"]) == ("finish", "2027-01-15T08:00:40.000Z")
        w.script = [answer([sleep(A, "1h")]), returns("gone")]
        await w.after(30)
        await w.after(9)
        assert await status(w, event_id) == "Running"
        await w.after(1)
        run = await detail(w, event_id)
        assert (run["status"], run["waiting_for"]) == ("Cancelled", [])
        assert "timeouts.finish" in run["last_error"]
        assert body_of(w.calls[-1])["event"]["data"]["run_id"] == run["run_id"]
        assert "timeouts.finish" in (await w.http.get(f"/runs/{run['run_id']}")).text


async def test_the_time_to_finish_begins_with_the_first_call(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path) as w:
        clock = w.clock
        await register(w, config("shop-pack", "go", timeouts={"finish": "10s"}))
        w.engine.drain()
        event_id = (await w.http.post("/e/key", json={"name": "go"})).json()["ids"][0]
    clock.advance(3600)
    async with world(clock, path, script=[answer([sleep(B, "9s")]), returns(1)]) as w:
        await w.after(RESENT_AFTER)
        assert await status(w, event_id) == "Running"
        await w.after(9)
        assert await status(w, event_id) == "Completed"


async def test_a_rerun_can_be_cancelled_as_the_first_run() -> None:
    async with world(script=[returns(1), answer(HOURS)]) as w:
        option = cancel(**{"if": MATCH})
        timeouts = {"finish": "1h"}
        await register(w, config("shop-pack", "go", cancel=option, timeouts=timeouts))
        run = await only(w, await send(w, "go", {"id": "o1"}))
        again = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun", json={})
        await w.engine.idle()
        run_id = again.json()["data"]["run_id"]
        shown = (await w.http.get(f"/v1/stephttp/runs/{run_id}")).json()["data"]
        assert [one["kind"] for one in shown["limits"]] == ["cancel", "finish"]
        await send(w, "order/stopped", {"id": "o2"})
        assert (await w.run(run_id))["status"] == "Running"
        await send(w, "order/stopped", {"id": "o1"})
        assert (await w.run(run_id))["status"] == "Cancelled"


async def test_the_page_of_a_run_shows_what_may_cancel_it_and_what_did() -> None:
    async with world(script=[answer(HOURS)]) as w:
        option = cancel(**{"if": MATCH})
        await register(
            w, config("shop-pack", "go", cancel=option, timeouts={"finish": "6h", "start": "1s"})
        )
        event_id = await send(w, "go", {"id": "o1"})
        run = await detail(w, event_id)
        assert [(one["kind"], one["key"], one["condition"]) for one in run["limits"]] == [
            ("cancel", "order/stopped", MATCH),
            ("finish", None, None),
        ]
        assert [one["kind"] for one in run["waiting_for"]] == ["sleep"]
        page = (await w.http.get(f"/runs/{run['run_id']}")).text
        assert "May be cancelled" in page
        assert "if it has not ended by" in page
        await send(w, "order/stopped", {"id": "o1"})
        page = (await w.http.get(f"/runs/{run['run_id']}")).text
        assert "the event order/stopped has cancelled it" in page
        assert "<span>cancelled it</span>" in page
        assert "May be cancelled" not in page


async def test_what_may_cancel_a_run_is_not_what_it_waits_for() -> None:
    """Neither for SDKs and people, nor in metrics."""
    async with world(script=[answer(HOURS)]) as w:
        await register(w, config("shop-pack", "go", cancel=cancel(), timeouts={"finish": "9h"}))
        run = await only(w, await send(w, "go"))
        assert [one["kind"] for one in run["waiting_for"]] == ["sleep"]
        jobs = (await w.http.get(f"/v1/runs/{run['run_id']}/jobs")).json()
        assert len(jobs["data"] if isinstance(jobs, dict) else jobs) == 1
        metrics = (await w.http.get("/metrics")).text
        assert 'stephttp_waits{kind="event"} 0' in metrics
        assert 'stephttp_waits{kind="cancel"}' not in metrics
        resumed = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/resume", json={})
        assert resumed.json()["data"] == {"waits": 1}
