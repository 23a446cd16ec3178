"""Functions of which one run is open at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.functions.support import (
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
from tests.engine.functions.test_start_limits import KEY, counts, send_many
from tests.engine.support import A, B, answer, world

SLEEP = {"op": "Sleep", "id": B, "name": "1h"}


async def test_no_run_starts_while_one_with_the_key_is_open(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path, script=[answer([SLEEP])] * 2) as w:
        singleton = {"mode": "skip", "key": KEY}
        await register(w, config("shop-sync", "go", singleton=singleton))
        ids = await send_many(w, "go", {"id": 1}, {"id": 1}, {"id": 2}, {"id": 1})
        assert await counts(w, ids) == [1, 0, 1, 0]
        clock = w.clock
    async with world(clock, path) as w:
        # It waits; that is open, too.
        await w.after(3599)
        assert await counts(w, await send_many(w, "go", {"id": 1})) == [0]
        w.script = [returns(1)] * 3
        await w.after(1)
        assert await counts(w, await send_many(w, "go", {"id": 1})) == [1]


async def test_a_run_takes_the_place_of_the_one_that_is_open(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path, script=[answer([SLEEP])] * 2) as w:
        singleton = {"mode": "cancel", "key": KEY}
        await register(w, config("shop-sync", "go", singleton=singleton))
        first, other = await send_many(w, "go", {"id": 1}, {"id": 2})
        clock = w.clock
    async with world(clock, path, script=[answer([SLEEP])]) as w:
        await w.after(1)
        together = await send_many(w, "go", {"id": 1}, {"id": 1}, {"id": 1})
        replaced = await only(w, first)
        assert replaced["status"] == "Cancelled"
        page = await w.http.get(f"/runs/{replaced['run_id']}")
        assert "a later run took its place, as the option singleton says" in page.text
        assert (await only(w, other))["status"] == "Running"
        statuses = [(await only(w, event_id))["status"] for event_id in together]
        assert statuses == ["Cancelled", "Cancelled", "Running"]
        assert len(w.calls) == 1


@pytest.mark.parametrize("end", ["cancel", "fail"])
async def test_a_singleton_is_free_however_its_run_ends(end: str) -> None:
    async with world(script=[answer([SLEEP])]) as w:
        await register(w, config("shop-sync", "go", singleton={"mode": "skip"}))
        run = await only(w, await send(w, "go"))
        if end == "cancel":
            await w.http.delete(f"/v1/runs/{run['run_id']}")
        else:
            w.script = [answer({}, 400, x_inngest_no_retry="true")]
            await w.after(3600)
        assert (await w.run(run["run_id"]))["status"] == f"{end.title()}led".replace(
            "Faill", "Fail"
        )
        w.script = [returns(1)]
        assert await counts(w, [await send(w, "go")]) == [1]


async def test_an_invoker_learns_at_once_that_a_run_is_open() -> None:
    async with world(script=[answer([SLEEP])]) as w:
        child = config("shop-child", "child", singleton={"mode": "skip"})
        await register(w, config("shop-parent", "go"), child)
        run = await only(w, await send(w, "child"))
        w.script = [answer([invoke()]), returns("told")]
        assert output(await only(w, await send(w, "go"))) == "told"
        error = body_of(w.calls[-1])["steps"][A]["error"]
        assert error["name"] == "NotStartedError"
        assert f"singleton: run {run['run_id']}" in error["message"]


async def test_an_invoker_whose_run_is_displaced_is_told_that_it_was_cancelled() -> None:
    async with world(script=[answer([invoke()]), answer([SLEEP])]) as w:
        child = config("shop-child", "child", singleton={"mode": "cancel"})
        await register(w, config("shop-parent", "go"), child)
        event_id = await send(w, "go")
        w.script = [returns("told"), answer([SLEEP])]  # the older run is called first
        await send(w, "child")
        assert output(await only(w, event_id)) == "told"
        assert body_of(w.calls[-2])["steps"][A]["error"]["name"] == "CancelledError"


async def test_a_function_that_invokes_itself_ends_as_its_singleton_says() -> None:
    async with world() as w:
        await register(w, config("shop-self", "go", singleton={"mode": "skip"}))
        w.script = [answer([invoke(function="shop-self")]), returns("told")]
        assert output(await only(w, await send(w, "go"))) == "told"
        assert body_of(w.calls[-1])["steps"][A]["error"]["name"] == "NotStartedError"
        await register(w, config("shop-self", "go", singleton={"mode": "cancel"}))
        w.script = [answer([invoke(function="shop-self")]), returns("second")]
        assert (await only(w, await send(w, "go")))["status"] == "Cancelled"
        assert w.script == []


async def test_an_event_that_a_singleton_refuses_uses_up_no_limit() -> None:
    async with world(script=[answer([SLEEP]), returns(1), returns(1)]) as w:
        child = config("shop-sync", "go", singleton={"mode": "skip"}, idempotency=KEY)
        await register(w, child)
        ids = await send_many(w, "go", {"id": 1}, {"id": 2})
        await w.after(3600)
        ids.append(await send(w, "go", {"id": 2}))
        assert await counts(w, ids) == [1, 0, 1]


async def test_a_held_run_that_is_due_while_one_is_open_is_not_started() -> None:
    options: Any = {"singleton": {"mode": "skip"}, "debounce": {"period": "10s"}}
    async with world() as w:
        await register(w, config("shop-sync", "go", **options))
        await send(w, "go")
        w.script = [answer([SLEEP])]
        assert len(await w.after(10)) == 1
        event_id = await send(w, "go")
        assert await w.after(10) == []
        assert await started(w, event_id) == []


async def test_a_rerun_is_not_one_of_the_runs_of_a_singleton() -> None:
    async with world(script=[answer([SLEEP]), returns("again")]) as w:
        await register(w, config("shop-sync", "go", singleton={"mode": "skip"}))
        run = await only(w, await send(w, "go"))
        response = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun", json={})
        await w.engine.idle()
        assert output(await w.run(response.json()["data"]["run_id"])) == "again"
        assert (await w.run(run["run_id"]))["status"] == "Running"
