"""Runs that begin later than their events come: debounce and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.functions.support import (
    URL,
    body_of,
    config,
    invoke,
    only,
    output,
    register,
    returns,
    send,
    started,
)
from tests.engine.functions.test_start_limits import KEY, counts, rows, send_many
from tests.engine.support import A, World, answer, until, world
from tests.engine.test_full_disk import make_read_only, make_writable

DEBOUNCE = {"period": "10s", "timeout": "25s", "key": KEY}
BATCH = {"maxSize": 3, "timeout": "10s", "key": KEY}
HELD = ("held_starts", "held_events", "held_invokers")


async def holds_nothing(w: World) -> bool:
    return not any([await rows(w, table) for table in HELD])


def ids_of(call: Any) -> list[Any]:
    return [event["data"]["n"] for event in body_of(call)["events"]]


async def test_a_debounced_function_starts_with_the_latest_event_once_none_comes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    async with world(path=path) as w:
        await register(w, config("shop-sync", "changed", debounce=DEBOUNCE))
        ids = await send_many(w, "changed", {"id": 1, "n": 1}, {"id": 1, "n": 2}, {"id": 2, "n": 3})
        await w.after(9)
        ids.append(await send(w, "changed", {"id": 1, "n": 4}))
        clock = w.clock
    async with world(clock, path, script=[returns(1)]) as w:
        assert [ids_of(call) for call in await w.after(1)] == [[3]]
        assert await w.after(8.999) == []
        w.script = [returns(1)]
        assert [ids_of(call) for call in await w.after(0.001)] == [[4]]
        assert await counts(w, ids) == [0, 0, 1, 1]
        assert await holds_nothing(w)
        # What comes now is the first again.
        await send(w, "changed", {"id": 1, "n": 5})
        assert await w.after(9.999) == []
        w.script = [returns(1)]
        assert [ids_of(call) for call in await w.after(1)] == [[5]]


async def test_a_debounce_ends_after_its_timeout_whatever_comes() -> None:
    async with world() as w:
        await register(w, config("shop-sync", "changed", debounce=DEBOUNCE))
        for n in range(5):  # at 0, 6, 12, 18, 24 s
            await send(w, "changed", {"n": n})
            await w.after(0 if n == 4 else 6)
        w.script = [returns(1)]
        (call,) = await w.after(1)
        assert ids_of(call) == [4]


async def test_what_fell_due_while_no_engine_ran_starts_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path) as w:
        options: Any = {"debounce": {"period": "10s"}}
        await register(
            w,
            config("shop-sync", "changed", **options),
            config("shop-all", "changed", batchEvents={"maxSize": 5, "timeout": "20s"}),
        )
        await send_many(w, "changed", {"n": 1}, {"n": 2})
        w.clock.advance(3600)
        clock = w.clock
    async with world(clock, path, script=[returns(1)] * 2) as w:
        await w.engine.idle()
        assert sorted(map(ids_of, w.calls)) == [[1, 2], [2]]


async def test_a_batch_starts_with_the_event_that_completes_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path) as w:
        await register(w, config("shop-all", "changed", batchEvents=BATCH))
        ids = await send_many(w, "changed", {"id": 1, "n": 1}, {"id": 2, "n": 2})
        clock = w.clock
    async with world(clock, path, script=[returns("both")] * 2) as w:
        await w.after(9)
        ids += await send_many(
            w, "changed", *({"id": 1, "n": n} for n in (3, 4, 5)), {"id": 2, "n": 6}
        )
        assert [ids_of(call) for call in w.calls] == [[1, 3, 4]]
        assert body_of(w.calls[0])["event"]["data"]["n"] == 1
        # Each event leads to its run, and is not taken twice.
        assert await counts(w, ids) == [1, 0, 1, 1, 0, 0]
        (run,) = {run["run_id"] for one in (0, 2, 3) for run in await started(w, ids[one])}
        page = (await w.http.get(f"/v1/stephttp/runs/{run}")).json()["data"]
        assert {event["internal_id"] for event in page["events"]} == {ids[0], ids[2], ids[3]}
        # The batch with another key, and the event that was left, begin at their own times.
        assert [ids_of(call) for call in await w.after(1)] == [[2, 6]]
        w.script = [returns(1)]
        assert await w.after(8.999) == []
        assert [ids_of(call) for call in await w.after(1)] == [[5]]
        assert await holds_nothing(w)


async def test_many_events_of_one_request_are_many_batches() -> None:
    async with world(script=[returns(1)] * 3) as w:
        await register(w, config("shop-all", "changed", batchEvents=BATCH))
        await send_many(w, "changed", *({"n": n} for n in range(10)))
        assert sorted(map(ids_of, w.calls)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        w.script = [returns(1)]
        assert [ids_of(call) for call in await w.after(10)] == [[9]]


async def test_an_event_that_a_batch_does_not_want_starts_a_run_alone() -> None:
    batch = {"maxSize": 2, "timeout": "1m", "if": "event.data.plan == 'free'"}
    async with world(script=[returns(1)] * 2) as w:
        await register(w, config("shop-all", "changed", batchEvents=batch))
        free = {"plan": "free"}
        await send_many(w, "changed", {"n": 1, **free}, {"n": 2, "plan": "pro"}, {"n": 3, **free})
        assert sorted(map(ids_of, w.calls)) == [[1, 3], [2]]


async def test_a_batch_is_complete_when_its_events_are_large() -> None:
    sleep = {"op": "Sleep", "id": A, "name": "1h"}
    async with world(script=[answer([sleep])]) as w:
        batch = {"maxSize": 100, "timeout": "1m"}
        await register(w, config("shop-all", "changed", batchEvents=batch))
        large = "x" * (2 * 1024 * 1024)
        for n in range(4):
            await send(w, "changed", {"n": n, "text": large})
        assert w.calls == []
        # Now there are 10 MiB of them.
        event_id = await send(w, "changed", {"n": 4, "text": large})
        (call,) = w.calls
        # More than a call may carry: the SDK asks for it.
        assert body_of(call)["use_api"] is True
        (run,) = await started(w, event_id)
        batch_of = (await w.http.get(f"/v0/runs/{run['run_id']}/batch")).json()
        assert [event["data"]["n"] for event in batch_of] == [0, 1, 2, 3, 4]


async def test_what_a_debounce_releases_goes_into_a_batch() -> None:
    options: Any = {"debounce": {"period": "5s", "key": KEY}}
    options["batchEvents"] = {"maxSize": 2, "timeout": "1m"}
    async with world() as w:
        await register(w, config("shop-all", "changed", **options))
        await send_many(w, "changed", {"id": 1, "n": 1}, {"id": 1, "n": 2})
        await w.after(2)
        await send(w, "changed", {"id": 2, "n": 3})
        assert await w.after(3) == []
        w.script = [returns(1)]
        assert [ids_of(call) for call in await w.after(2)] == [[2, 3]]
        assert await holds_nothing(w)


async def test_held_events_start_what_the_function_is_when_they_are_due() -> None:
    async with world() as w:
        await register(
            w,
            config("shop-sync", "changed", debounce={"period": "10s"}),
            config("shop-all", "changed", batchEvents=BATCH),
        )
        await send_many(w, "changed", {"n": 1}, {"n": 2})
        # No option holds anything any more; one is a singleton now, whose key is the events'.
        singleton = {"mode": "skip", "key": "event.data.n"}
        await register(
            w, config("shop-sync", "changed", singleton=singleton), config("shop-all", "changed")
        )
        sleep = {"op": "Sleep", "id": A, "name": "1h"}
        w.script = [answer([sleep])] * 2
        found = {body_of(call)["ctx"]["fn_id"]: ids_of(call) for call in await w.after(10)}
        assert sorted(found.values()) == [[1, 2], [2]]
        assert [row[0].split()[0] for row in await rows(w, "singletons")] == ["singleton"]
        w.script = [returns(1)]
        assert await counts(w, [await send(w, "changed", {"n": 2})]) == [1]


@pytest.mark.parametrize("how", ["withdrawn", "paused", "refused"])
async def test_what_cannot_be_started_when_it_is_due_is_not_held_any_longer(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Those who invoked it learn that at once: else they would wait for a year."""
    async with world() as w:
        child = config("shop-child", "never", debounce={"period": "10s"})
        parent = config("shop-parent", "go")
        await register(w, parent, child)
        w.script = [answer([invoke()])]
        event_id = await send(w, "go")
        if how == "withdrawn":
            await register(w, parent)
        elif how == "refused":
            await register(w, parent, {**child, "somethingNew": True})
        else:
            paused = await w.http.post("/v1/stephttp/functions/shop-child/pause")
            assert paused.status_code == 200
        w.script = [returns("told")]
        await w.after(10)
        assert output(await only(w, event_id)) == "told"
        error = body_of(w.calls[-1])["steps"][A]["error"]
        assert error["name"] == "NotStartedError"
        words = {"withdrawn": "was withdrawn", "paused": "is paused", "refused": "somethingNew"}
        assert words[how] in error["message"]
        assert await holds_nothing(w)
        (record,) = [one for one in caplog.records if "held events" in one.getMessage()]
        assert record.levelname == "WARNING"


async def test_all_who_invoked_a_held_function_get_what_its_run_returned(tmp_path: Path) -> None:
    path = tmp_path / "db"
    parents = [config(f"shop-{name}", "go") for name in ("a", "b", "c")]
    async with world(path=path) as w:
        child = config("shop-child", "never", debounce={"period": "10s"})
        await register(w, *parents, child)
        w.script = [answer([invoke()])] * 3
        event_id = await send(w, "go")
        await w.after(5)
        clock = w.clock
    async with world(clock, path) as w:
        w.script = [returns("child"), *[returns("parent")] * 3]
        calls = await w.after(5)
        assert [body_of(call)["steps"] for call in calls[1:]] == [{A: {"data": "child"}}] * 3
        runs = await started(w, event_id)
        assert [output(run) for run in runs] == ["parent"] * 3
        assert await holds_nothing(w)


async def test_who_invokes_a_batched_function_gets_the_result_of_the_batch() -> None:
    async with world() as w:
        batch = {"maxSize": 2, "timeout": "1m"}
        await register(w, config("shop-parent", "go"), config("shop-child", "x", batchEvents=batch))
        await send(w, "x", {"n": 5})
        w.script = [answer([invoke()]), returns("two"), returns("done")]
        event_id = await send(w, "go")
        assert ids_of(w.calls[1]) == [5, 1]
        assert body_of(w.calls[2])["steps"] == {A: {"data": "two"}}
        assert output(await only(w, event_id)) == "done"


async def test_a_run_that_waits_for_held_events_may_give_up() -> None:
    async with world() as w:
        child = config("shop-child", "never", debounce={"period": "1m"})
        await register(w, config("shop-parent", "go"), child)
        w.script = [answer([invoke(timeout="5s")]), returns("gave up")]
        event_id = await send(w, "go")
        await w.after(5)
        assert output(await only(w, event_id)) == "gave up"
        w.script = [returns("late")]
        assert len(await w.after(55)) == 1


async def test_held_events_wait_for_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(path=tmp_path / "db") as w:
        await register(w, config("shop-sync", "changed", debounce={"period": "10s"}))
        event_id = await send(w, "changed", {"n": 1})
        make_read_only(w)
        w.clock.advance(10)
        await until(lambda: "trying again later" in caplog.text)
        make_writable(w)
        w.script = [returns(1)]
        assert [ids_of(call) for call in await w.after(1)] == [[1]]
        assert await counts(w, [event_id]) == [1]


async def test_more_than_a_portion_of_held_runs_are_due_together() -> None:
    count = 230
    async with world() as w:
        debounce = {"period": "10s", "key": KEY}
        await register(w, config("shop-sync", "changed", debounce=debounce))
        ids = await send_many(w, "changed", *({"id": n, "n": n} for n in range(count)))
        w.script = [returns(1)] * count
        calls = await w.after(10)
        assert sorted(ids_of(call)[0] for call in calls) == list(range(count))
        assert await counts(w, ids) == [1] * count
        assert await holds_nothing(w)


async def test_a_batch_runs_again_with_all_its_events() -> None:
    async with world(script=[returns(1), returns(2)]) as w:
        await register(w, config("shop-all", "changed", batchEvents={**BATCH, "maxSize": 2}))
        ids = await send_many(w, "changed", {"n": 1}, {"n": 2})
        run = await only(w, ids[1])
        response = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun", json={})
        await w.engine.idle()
        assert ids_of(w.calls[1]) == [1, 2]
        assert output(await w.run(response.json()["data"]["run_id"])) == 2


async def test_an_app_that_is_removed_takes_nothing_of_others_with_it() -> None:
    async with world() as w:
        await register(w, config("shop-all", "changed", debounce={"period": "5s"}))
        other = config("store-all", "changed", debounce={"period": "5s"})
        await register(w, other, appname="store", url="http://store.test/x")
        await send(w, "changed", {"n": 1})
        await w.http.delete("/fn/remove", params={"url": URL})
        w.script = [returns(1)]
        (call,) = await w.after(5)
        assert "store-all" in str(call.url)


@pytest.mark.parametrize(
    "options",
    [
        {"batchEvents": {"maxSize": 5, "timeout": "10s"}},
        {"debounce": {"period": "10s", "timeout": "10s"}},
    ],
)
async def test_what_is_held_does_not_wait_longer_because_the_clock_is_set_back(
    options: dict[str, Any],
) -> None:
    async with world() as w:
        await register(w, config("shop-all", "go", **options))
        await send(w, "go", {"n": 1})
        w.clock.advance(-1800)
        await send(w, "go", {"n": 2})
        assert await w.after(9) == []
        w.script = [returns(1)]
        (call,) = await w.after(1)
        assert ids_of(call)[-1] == 2
