"""Events for many waits, and waits after many events: asked in portions, each wait ended once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stephttp._wire.ids import hash_step_id
from stephttp.engine import VirtualClock
from stephttp.engine.deliverer import Deliverer
from stephttp.engine.model.change import Change
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.work import deliveries, matching
from tests.engine.support import DONE, RUN, A, B, World, answer, sleep, step, world

PARKED = answer([sleep(hash_step_id("parked"), "9h")])


def run_id(number: int) -> str:
    return f"01M81KWY4BC292NS2P7Q{number:06d}"


def wait(condition: str | None = None, id_: str = A, timeout: str = "1h") -> dict[str, Any]:
    opts = {"timeout": timeout} | ({} if condition is None else {"if": condition})
    return {"op": "WaitForEvent", "id": id_, "name": "go", "opts": opts}


async def send(w: World, *data: dict[str, Any]) -> None:
    events = [{"name": "go", "data": one} for one in data]
    response = await w.http.post("/e/k", json=events)
    assert response.status_code == 200, response.text


async def memo(w: World, number: int, id_: str = A) -> Any:
    """What ended the wait of a run: data of the event, `None` for a timeout, or `open`."""

    def read(connection: sqlite3.Connection) -> Any:
        query = "SELECT memo FROM steps WHERE run_id = ? AND step_id = ?"
        (found,) = connection.execute(query, (run_id(number), id_)).fetchone()
        return "open" if found is None else json.loads(found)

    found = await w.engine.store.read(read)
    return found["data"] if isinstance(found, dict) else found


async def memos(w: World, count: int) -> list[Any]:
    return [await memo(w, number) for number in range(count)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions of a few, so that a few waits are many."""
    monkeypatch.setattr(matching, "MOST_AT_ONCE", 3)
    monkeypatch.setattr(deliveries, "_PORTION", 4)
    monkeypatch.setattr(deliveries, "_MOST_ENDED", 2)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The deliverer sleeps, as if it were far behind; `undo` lets it work."""
    monkeypatch.setattr(Deliverer, "wake", lambda self: self._rested.set())
    return monkeypatch


async def work(w: World) -> None:
    w.script += [PARKED] * 40
    Deliverer.wake(w.engine._deliverer)
    await w.engine.idle()
    w.script.clear()


async def test_an_event_asks_the_waits_that_want_its_values_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    matches = expressions.matches

    def counted(text: str, values: dict[str, Any], now_ms: int = 0) -> bool:
        asked.append(text)
        return matches(text, values, now_ms)

    async with world() as w:
        for number in range(150):
            await w.post(wait(f"async.data.id == 'o{number}'"), run_id=run_id(number))
        await w.post(wait("async.data.id == 'o7' && async.data.n > 1"), run_id=run_id(150))
        await w.post(wait("7.0 == async.data.id && async.name == 'go'"), run_id=run_id(151))
        await w.post(wait("async.data.n > 99"), run_id=run_id(152))
        monkeypatch.setattr(expressions, "matches", counted)
        w.script = [PARKED, PARKED]
        await send(w, {"id": "o7"}, {"id": "nobody's"}, {"id": 7})
        await w.after(0)
        assert asked == [
            "async.data.n > 99", "async.data.id == 'o7'",
            "async.data.id == 'o7' && async.data.n > 1",
            "async.data.n > 99",
            "async.data.n > 99", "7.0 == async.data.id && async.name == 'go'",
        ]  # fmt: skip
        assert await memo(w, 7) == {"id": "o7"}
        assert await memo(w, 151) == {"id": 7}
        assert await memo(w, 8) == await memo(w, 150) == await memo(w, 152) == "open"
        (undelivered,) = await w.engine.store.read(
            lambda c: c.execute("SELECT count(*) FROM deliveries").fetchone()
        )
        assert undelivered == 0


@pytest.mark.usefixtures("small")
async def test_many_waits_are_ended_a_few_in_each_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    end = deliveries.end

    def counted(connection: sqlite3.Connection, task: deliveries.Task, at: Any) -> Sequence[Change]:
        changes = end(connection, task, at)
        ended.append(len(changes))
        return changes

    monkeypatch.setattr(deliveries, "end", counted)
    async with world() as w:
        for number in range(11):
            condition = f"async.data.n > {number}" if number % 3 else None
            await w.post(wait(condition), run_id=run_id(number))
        w.script = [PARKED] * 10
        await send(w, {"n": 8})
        await w.after(0)
        got = await memos(w, 11)
        assert got == [{"n": 8} if n < 8 or n % 3 == 0 else "open" for n in range(11)]
        assert sum(ended) == 9
        assert max(ended) == 2
        # A second event finds only those that are left.
        ended.clear()
        w.script = [PARKED] * 2
        await send(w, {"n": 100})
        await w.after(0)
        assert await memos(w, 11) == [{"n": 100} if one == "open" else one for one in got]
        assert sum(ended) <= 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ended_before", [0, 1, 2])
async def test_a_crash_ends_each_wait_once(
    tmp_path: Path, held: pytest.MonkeyPatch, ended_before: int
) -> None:
    path, clock = tmp_path / "db", VirtualClock()
    async with world(clock, path) as w:
        for number in range(6):
            await w.post(wait("async.data.n > 0"), run_id=run_id(number))
        await send(w, {"n": 1}, {"n": 2})
        # What the deliverer had done before the process died.
        w.script = [PARKED] * 6
        task = await w.engine.store.browse(deliveries.next_task)
        await w.engine.store.browse(partial(deliveries.look, task=task))
        for _ in range(ended_before):
            unit = partial(deliveries.end, task=task, at=w.engine.moment())
            await w.engine.store.write(unit, w.engine.after.follow_all)
        await w.after(0)
        assert [one != "open" for one in await memos(w, 6)].count(True) == 2 * ended_before
    held.undo()
    held.setattr(matching, "MOST_AT_ONCE", 3)
    async with world(clock, path, [PARKED] * 6) as w:
        await w.engine.idle()
        assert await memos(w, 6) == [{"n": 1}] * 6
        links = await w.engine.store.read(
            lambda c: c.execute("SELECT count(*) FROM links WHERE received").fetchone()
        )
        assert links == (6,)


@pytest.mark.usefixtures("small")
async def test_a_wait_that_opens_meanwhile_is_not_for_the_event(held: pytest.MonkeyPatch) -> None:
    async with world() as w:
        for number in range(5):
            await w.post(wait("async.data.n > 0"), run_id=run_id(number))
        await w.post(sleep(), run_id=run_id(5))
        await w.after(1)
        await send(w, {"n": 1})
        await w.after(1)
        await w.post(wait("async.data.n > 0"), run_id=run_id(6))
        # Its run was there before the event, so it looks back; the event does not end it as well.
        w.script = [answer([wait("async.data.n > 0", B)]), PARKED]
        await w.after(5)
        assert await memo(w, 5, B) == {"n": 1}
        held.undo()
        held.setattr(matching, "MOST_AT_ONCE", 3)
        await work(w)
        assert await memos(w, 5) == [{"n": 1}] * 5
        assert await memo(w, 6) == "open"


@pytest.mark.usefixtures("small")
async def test_a_wait_for_which_an_event_has_come_does_not_time_out(
    held: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        for number in range(4):
            await w.post(wait("async.data.n > 0", timeout="10s"), run_id=run_id(number))
        await w.post(wait("async.data.n > 5", timeout="10s"), run_id=run_id(4))
        await w.after(9)
        await send(w, {"n": 1})
        await w.after(2)
        assert await memos(w, 5) == ["open"] * 5
        held.undo()
        held.setattr(matching, "MOST_AT_ONCE", 3)
        await work(w)
        assert await memos(w, 5) == [{"n": 1}] * 4 + ["open"]
        w.script = [PARKED]
        await w.after(1)
        assert await memo(w, 4) is None


@pytest.mark.usefixtures("small")
async def test_events_of_a_name_come_in_their_order(held: pytest.MonkeyPatch) -> None:
    async with world() as w:
        for number in range(5):
            await w.post(wait("async.data.n > 0"), run_id=run_id(number))
        await send(w, {"n": 1})
        await send(w, {"n": 2})
        held.undo()
        held.setattr(matching, "MOST_AT_ONCE", 3)
        await work(w)
        assert await memos(w, 5) == [{"n": 1}] * 5


@pytest.mark.usefixtures("small")
async def test_a_wait_that_another_cause_ended_stays_ended_so(held: pytest.MonkeyPatch) -> None:
    async with world() as w:
        for number in range(5):
            await w.post(wait("async.data.n > 0"), run_id=run_id(number))
        await send(w, {"n": 1})
        task = await w.engine.store.browse(deliveries.next_task)
        await w.engine.store.browse(partial(deliveries.look, task=task))
        await w.engine.cancel(run_id(0))
        w.script = [PARKED] * 3
        for _ in range(2):
            unit = partial(deliveries.end, task=task, at=w.engine.moment())
            await w.engine.store.write(unit, w.engine.after.follow_all)
        await w.after(0)
        assert await memos(w, 5) == ["open"] + [{"n": 1}] * 3 + ["open"]
        assert await memo(w, 0) == "open"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("wanted", [7, 99])
async def test_a_wait_looks_through_many_earlier_events(wanted: int) -> None:
    async with world() as w:
        await w.post(sleep(), step(B), run_id=run_id(0))
        await w.after(1)
        await send(w, *({"n": number} for number in range(12)))
        condition = f"async.data.n == {wanted}"
        w.script = [answer([wait(condition, timeout="0s")]), PARKED]
        await w.after(4)
        await w.engine.idle()
        await w.after(0.1)
        assert await memo(w, 0) == ({"n": 7} if wanted == 7 else None)


async def test_two_waits_one_after_the_other_get_two_events() -> None:
    async with world() as w:
        await w.post(wait(), run_id=RUN)
        w.script = [answer([wait(id_=B)])]
        await send(w, {"n": 1})
        await w.after(1)
        assert len((await w.run())["waiting_for"]) == 1
        w.script = [answer(DONE)]
        await send(w, {"n": 2})
        await w.after(0)
        assert (await w.run())["status"] == "Completed"


async def test_waits_side_by_side_get_the_same_event() -> None:
    async with world() as w:
        await w.post(wait(), wait(id_=B), run_id=run_id(0))
        w.script = [PARKED]
        await send(w, {"n": 1})
        await w.after(0)
        assert await memo(w, 0) == await memo(w, 0, B) == {"n": 1}
