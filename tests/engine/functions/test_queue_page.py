"""What waits behind which limit, as pages show it."""

from __future__ import annotations

import html
import re
from functools import partial
from typing import Any

import pytest

from stephttp.engine.dashboard.formatting import NOTHING
from stephttp.engine.reading import queues
from tests.engine.functions.queue import Queue, events
from tests.engine.functions.support import config, only, output, register, returns, send
from tests.engine.functions.test_function_pages import page
from tests.engine.support import World, world

USER = "event.data.user"
NONE = f"{NOTHING} {NOTHING}"
"""No key, and nothing is counted that is under way."""


async def shown(w: World, path: str = "/queues") -> str:
    return html.unescape(await page(w, path))


async def said(w: World) -> dict[str, Any]:
    """What the API says of the same."""
    data: dict[str, Any] = (await w.http.get("/v1/stephttp/queues")).json()["data"]
    return data


async def test_nothing_waits() -> None:
    async with world() as w:
        assert "Nothing waits behind a limit" in await shown(w)


async def test_held_events_are_shown_with_their_time() -> None:
    batch = {"maxSize": 3, "timeout": "60s", "key": USER}
    async with world(script=[returns(1)]) as w:
        await register(
            w,
            config("shop-batch", "go", batchEvents=batch),
            config("shop-late", "go", debounce={"period": "10s"}),
        )
        for user in ("Ada", "Ada", "Grace"):
            await send(w, "go", {"user": user})
            w.clock.advance(1)
        text = await shown(w)
        assert "3 runs to start" in text
        rows = re.findall(
            rf"shop-(late|batch) a (debounce|batch)\D*? (Ada|Grace|{NOTHING}) (\d) (\S+ \S+)", text
        )
        assert rows == [
            ("late", "debounce", NOTHING, "3", "2027-01-15 08:00:12"),
            ("batch", "batch", "Ada", "2", "2027-01-15 08:01:00"),
            ("batch", "batch", "Grace", "1", "2027-01-15 08:01:02"),
        ]
        ada = (await said(w))["held"][1]
        assert (ada["function"], ada["key"], ada["hold"], ada["events"]) == (
            "shop-batch", "Ada", "batch", 2,
        )  # fmt: skip
        assert (ada["since"], ada["due_at"]) == (
            "2027-01-15T08:00:00.000Z", "2027-01-15T08:01:00.000Z",
        )  # fmt: skip
        assert (await said(w))["held_in_all"] == 3
        of_one = await shown(w, "/functions/shop-batch")
        assert "What waits" in of_one
        assert "a batch that is not complete Ada 2" in of_one
        assert "debounce" not in of_one.partition("What waits")[2]
        await w.after(10)
        text = await shown(w)
        assert "2 runs to start" in text
        assert "debounce" not in text


async def test_keys_are_text() -> None:
    async with world() as w:
        await register(w, config("shop-late", "go", debounce={"period": "10s", "key": USER}))
        for user in ("<script>alert(1)", {"a": [1]}, 7, None, "x" * 1000):
            await send(w, "go", {"user": user})
        text = (await w.http.get("/queues")).text
        assert "<script>alert" not in text
        for written in ("&lt;script&gt;alert(1)", "{&#34;a&#34;:[1]}", ">7<", f">{NOTHING}<"):
            assert written in text


LIMITED: dict[str, Any] = {"concurrency": [{"limit": 1, "key": USER}]}


async def test_calls_that_wait_behind_a_limit() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(w, config("shop-pack", "go", **LIMITED), config("shop-mail", "mail"))
        sent = [{"n": n, "user": user} for n, user in enumerate(("Ada", "Ada", "Ada", "Grace"))]
        ids = await events(w, *sent)
        await queue.settled()
        text = await shown(w)
        limit = "shop-pack at most 1 call at a time"
        assert f"{limit} Ada 1 2 {limit} Grace 1 0" in text
        of_one = await shown(w, "/functions/shop-pack")
        assert "What waits behind its limits" in of_one
        (first, second) = (await said(w))["limits"]
        assert (first["key"], first["under_way"], first["waiting"]) == ("Ada", 1, 2)
        assert (second["key"], second["most"], second["period_ms"]) == ("Grace", 1, None)
        assert "at most 1 call at a time Ada 1 2" in of_one
        assert "What waits" not in await shown(w, "/functions/shop-mail")
        states = {one["state"] for one in (await w.http.get("/v1/runs")).json()["data"]}
        assert states == {"running", "waiting"}
        waiting = (await w.http.get("/v1/runs", params={"status": "waiting"})).json()["data"]
        assert len(waiting) == 2
        assert {one["behind_limit"] for run in waiting for one in run["waiting_for"]} == {True}
        text = await shown(w, f"/runs/{waiting[0]['run_id']}")
        assert "Waits for its turn behind a limit Since 2027-01-15 08:00:00 UTC" in text
        assert "Resume now" not in text
        assert "Event started it" in text
        assert "Calls waits for its turn" in text
        detail = await w.http.get(f"/v1/stephttp/runs/{waiting[0]['run_id']}")
        kinds = [span["kind"] for span in detail.json()["data"]["spans"]]
        assert kinds == ["request", "wait"]
        assert "its turn behind a limit since 2027-01-15 08:00:00 UTC" in await shown(w, "/runs")
        await queue.end(*list(queue.open))
        await queue.end(*list(queue.open))
        await queue.end(*list(queue.open))
        assert "Nothing waits behind a limit" in await shown(w)
        for event_id in ids:
            assert output(await only(w, event_id)) in range(4)


async def test_a_throttle_says_when_it_opens() -> None:
    async with world(script=[returns(n) for n in range(3)]) as w:
        throttle = {"limit": 1, "period": "60s"}
        await register(w, config("shop-pack", "go", throttle=throttle))
        for _ in range(3):
            await send(w, "go")
        text = await shown(w)
        assert (
            f"shop-pack at most 1 run starts in 1 min the next 2027-01-15 08:01:00 UTC {NONE} 2"
        ) in text
        assert (await said(w))["limits"][0]["opens_at"] == "2027-01-15T08:01:00.000Z"
        await w.after(60)
        assert f"the next 2027-01-15 08:02:00 UTC {NONE} 1" in await shown(w)
        await w.after(60)
        assert f"the next 2027-01-15 08:03:00 UTC {NONE} 0" in await shown(w)
        await w.after(60)
        assert "Nothing waits behind a limit" in await shown(w)


async def test_many_limits_are_counted_and_the_fullest_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as w:
        queue = Queue(w)
        await register(w, config("shop-pack", "go", **LIMITED))
        users = ("Ada", "Grace", "Grace", "Joan", "Joan", "Joan")
        await events(w, *({"n": n, "user": user} for n, user in enumerate(users)))
        await queue.settled()
        found = await w.engine.store.browse(partial(queues, now_ms=w.clock.now_ms(), limit=2))
        assert [(row.key, row.waiting) for row in found.gates] == [("Joan", 2), ("Grace", 1)]
        assert found.gates_in_all == 3
        while queue.open:
            await queue.end(*list(queue.open))
