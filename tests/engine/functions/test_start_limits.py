"""Events that start nothing, because a function has been started often enough: idempotency, rate
limits."""

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
from tests.engine.support import A, World, answer, world

DAY = 86_400
KEY = "event.data.id"


async def send_many(w: World, name: str, *data: Any) -> list[str]:
    events = [{"name": name, "data": one} for one in data]
    response = await w.http.post("/e/key", json=events)
    assert response.status_code == 200, response.text
    await w.engine.idle()
    ids: list[str] = response.json()["ids"]
    return ids


async def counts(w: World, ids: list[str]) -> list[int]:
    return [len(await started(w, event_id)) for event_id in ids]


async def rows(w: World, table: str) -> list[Any]:
    query = f"SELECT * FROM {table}"
    found: list[Any] = await w.engine.store.read(lambda c: c.execute(query).fetchall())
    return found


async def test_an_idempotency_key_starts_one_run_in_24_hours(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path, script=[returns(1)] * 3) as w:
        await register(w, config("shop-pack", "order/paid", idempotency=KEY))
        together = await send_many(w, "order/paid", {"id": 1}, {"id": 1}, {"id": 2}, {"id": 1})
        assert await counts(w, together) == [1, 0, 1, 0]
        # Without a key, an event stands for no other one.
        assert await counts(w, await send_many(w, "order/paid", {})) == [1]
        await w.after(DAY - 1)
        clock = w.clock
    async with world(clock, path, script=[returns(1)] * 3) as w:
        assert await counts(w, await send_many(w, "order/paid", {"id": 1})) == [0]
        await w.after(1)
        again = await send_many(w, "order/paid", {"id": 1}, {"id": 1.0}, {}, {"id": "1"})
        assert await counts(w, again) == [1, 0, 1, 1]


async def test_a_rate_limit_drops_what_is_beyond_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    limit = {"limit": 20, "period": "1m", "key": KEY}
    async with world(path=path, script=[returns(1)] * 4) as w:
        await register(w, config("shop-pack", "order/paid", rateLimit=limit))
        # One whose turn it is, and a tenth of 20 beside it.
        burst = await send_many(w, "order/paid", *[{"id": 1}] * 5, {"id": 2})
        assert await counts(w, burst) == [1, 1, 1, 0, 0, 1]
        clock = w.clock
    async with world(clock, path, script=[returns(1)] * 3) as w:
        await w.after(2.999)
        assert await counts(w, await send_many(w, "order/paid", {"id": 1})) == [0]
        await w.after(0.001)
        assert await counts(w, await send_many(w, "order/paid", {"id": 1}, {"id": 1})) == [1, 0]
        await w.after(6)
        assert await counts(w, await send_many(w, "order/paid", *[{"id": 1}] * 3)) == [1, 1, 0]


async def test_a_limit_that_was_changed_is_the_new_one_at_once() -> None:
    async with world(script=[returns(1)] * 3) as w:
        limit = {"limit": 1, "period": "24h"}
        await register(w, config("shop-pack", "go", rateLimit=limit))
        assert await counts(w, await send_many(w, "go", {}, {})) == [1, 0]
        await register(w, config("shop-pack", "go", rateLimit={"limit": 1, "period": "5s"}))
        assert await counts(w, await send_many(w, "go", {}, {})) == [1, 0]
        await register(w, config("shop-pack", "go"))
        assert await counts(w, await send_many(w, "go", {})) == [1]


async def test_a_clock_that_is_set_back_shuts_no_limit_for_longer_than_its_period() -> None:
    async with world(script=[returns(1)] * 2) as w:
        await register(w, config("shop-pack", "go", rateLimit={"limit": 1, "period": "5s"}))
        assert await counts(w, await send_many(w, "go", {})) == [1]
        await w.after(-3600)
        assert await counts(w, await send_many(w, "go", {})) == [0]
        await w.after(5)
        assert await counts(w, await send_many(w, "go", {})) == [1]


async def test_an_event_that_one_limit_refuses_uses_up_no_other() -> None:
    limit = {"limit": 1, "period": "1m"}
    options: Any = {"idempotency": KEY, "rateLimit": limit}
    async with world(script=[returns(1)] * 2) as w:
        await register(w, config("shop-pack", "go", **options))
        assert await counts(w, await send_many(w, "go", {"id": 1}, {"id": 2})) == [1, 0]
        await w.after(59)
        assert await counts(w, await send_many(w, "go", {"id": 1})) == [0]
        await w.after(1)
        # The event that was beyond the limit has not used up its key, nor the other the limit.
        assert await counts(w, await send_many(w, "go", {"id": 2})) == [1]


async def test_limits_that_say_nothing_any_more_go() -> None:
    count = 40
    async with world() as w:
        limit = {"limit": 1, "period": "1s", "key": KEY}
        await register(w, config("shop-pack", "go", rateLimit=limit))
        w.script = [returns(1)] * (count + 4)
        await send_many(w, "go", *({"id": n} for n in range(count)))
        assert len(await rows(w, "rates")) == count
        await w.after(2)
        for n in range(4):
            await send(w, "go", {"id": n})
        # Each that is written takes ten with it.
        assert len(await rows(w, "rates")) == 4


async def test_an_invoker_learns_at_once_that_a_limit_refuses_its_run() -> None:
    limit = {"limit": 1, "period": "1m"}
    async with world() as w:
        await register(
            w, config("shop-parent", "go"), config("shop-child", "never", rateLimit=limit)
        )
        w.script = [answer([invoke()]), returns("child"), returns("first")]
        assert output(await only(w, await send(w, "go"))) == "first"
        w.script = [answer([invoke()]), returns("second")]
        assert output(await only(w, await send(w, "go"))) == "second"
        error = body_of(w.calls[-1])["steps"][A]["error"]
        assert error["name"] == "NotStartedError"
        assert "not started: rateLimit: 1 in 60 s" in error["message"]


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"rateLimit": {"limit": 1, "period": "1m"}}, 429, "rateLimit: 1 in 60 s"),
        ({"idempotency": KEY}, 409, "idempotency: an event with the same key"),
        ({"singleton": {"mode": "skip"}}, 409, "has not ended"),
    ],
)
async def test_a_caller_who_invokes_a_function_learns_that_it_is_not_started(
    options: Any, status: int, reason: str
) -> None:
    sleep = {"op": "Sleep", "id": A, "name": "1h"}
    async with world(script=[answer([sleep])]) as w:
        await register(w, config("shop-pack", "never", **options))
        body = {"data": {"id": 1}}
        assert (await w.http.post("/invoke/shop-pack", json=body)).status_code == 200
        refused = await w.http.post("/invoke/shop-pack", json=body)
        assert (refused.status_code, reason in refused.json()["error"]) == (status, True)
        await w.engine.idle()
        assert len(w.calls) == 1


async def test_a_rerun_is_not_limited() -> None:
    """It is what people ask for, of one run."""
    async with world(script=[returns(1), returns(2)]) as w:
        limit = {"limit": 1, "period": "1m"}
        await register(w, config("shop-pack", "go", rateLimit=limit, idempotency=KEY))
        run = await only(w, await send(w, "go", {"id": 1}))
        response = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun", json={})
        await w.engine.idle()
        assert output(await w.run(response.json()["data"]["run_id"])) == 2
