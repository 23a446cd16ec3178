"""What the dashboard shows of functions and of their runs."""

from __future__ import annotations

import re

from tests.engine.functions.support import (
    body_of,
    config,
    fails,
    only,
    register,
    returns,
    send,
)
from tests.engine.support import B, World, answer, world


async def page(w: World, path: str) -> str:
    """The text of a page, without its tags."""
    response = await w.http.get(path)
    assert response.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", response.text))


async def test_the_apps_page_names_functions_with_what_starts_them() -> None:
    async with world() as w:
        await register(
            w,
            config("shop-pack", "order/paid", {"event": "go", "expression": "event.data.n == 1"}),
            config("shop-limited", "go", concurrency=[{"limit": 1}]),
            config("shop-gone", "go"),
        )
        await register(
            w, config("shop-pack", "order/paid"), config("shop-timed", "go", {"cron": "@hourly"})
        )
        await w.post({"op": "Sleep", "id": B, "name": "1h"})  # a run of an endpoint
        text = await page(w, "/apps")
        assert "http://app.test 1 endpoint, 4 functions ·" in text
        assert "shop-pack starts with order/paid" in text
        assert "shop-timed starts with go , @hourly , next 2027-01-15 09:00:00 UTC" in text
        assert "Not started: its app does not register it any more" in text


async def test_functions_without_runs_have_no_filter_to_blame() -> None:
    async with world() as w:
        await register(w, config("shop-pack", "order/paid"))
        text = await page(w, "/runs")
        assert "The engine knows what can run , but has no run." in text
        assert "Nothing matches this filter." in await page(w, "/runs?q=o17")


async def test_the_page_of_a_run_names_its_function_and_its_event() -> None:
    async with world(script=[returns({"packed": "yes"})]) as w:
        await register(w, config("shop-pack", "order/paid"))
        run = await only(w, await send(w, "order/paid", {"id": "o17"}))
        path = f"/runs/{run['run_id']}"
        text = await page(w, path)
        assert not re.search("first phase|re-entries", text, re.IGNORECASE)
        assert "Event started it" in text
        assert "Calls 1 \N{MULTIPLICATION SIGN}" in text
        assert "Function the shop-pack , started by order/paid" in text
        assert "o17" in text
        assert "packed" in text
        assert "order/paid started it" in text
        listed = await page(w, "/runs")
        assert "shop-pack started by order/paid" in listed
        assert "POST" not in listed
        assert "Rerun with another body" not in text

        w.script = [fails(400, headers={"x-inngest-no-retry": "true"}, stack="in line 1")]
        run = await only(w, await send(w, "order/paid"))
        text = await page(w, f"/runs/{run['run_id']}")
        assert "in line 1" in text

        w.script = [answer([{"op": "Sleep", "id": B, "name": "1h"}])]
        event_id = await send(w, "order/paid")
        run = await only(w, event_id)
        assert "The function has not returned yet." in await page(w, f"/runs/{run['run_id']}")
        assert "shop-pack was started by it" in await page(w, f"/events/{event_id}")
        assert body_of(w.calls[-1])["event"]["id"] == event_id


async def test_an_event_that_is_in_no_list_is_named_without_a_link() -> None:
    async with world(script=[returns(1)]) as w:
        await register(w, config("shop-pack"))
        invoked = await w.http.post("/v1/stephttp/functions/shop-pack/invoke", json={"data": {}})
        path = f"/runs/{invoked.json()['data']['run_id']}"
        await w.engine.idle()
        assert "inngest/function.invoked started it" in await page(w, path)
        assert "/events/" not in (await w.http.get(path)).text


async def test_an_event_without_runs_says_what_may_be_the_reason() -> None:
    async with world() as w:
        text = await page(w, f"/events/{await send(w, 'order/paid')}")
        assert "or have refused it by its options, such as a rate limit" in text


async def test_runs_of_functions_are_found_by_their_events() -> None:
    async with world(script=[returns(None)] * 2) as w:
        await register(w, config("shop-pack", "order/paid"))
        runs = [await only(w, await send(w, "order/paid", {"id": one})) for one in ("o17", "ö18")]
        for text, found in (("o17", runs[:1]), ("ö18", runs[1:]), ("order/paid", runs[::-1])):
            listed = (await w.http.get("/v1/runs", params={"text": text})).json()["data"]
            assert [one["run_id"] for one in listed] == [one["run_id"] for one in found]


async def test_runs_of_functions_have_no_first_phase_in_the_figures() -> None:
    """It would be 0 ms, and make the first phases of endpoints look shorter."""
    async with world(script=[returns(1)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        await send(w, "order/paid")
        total = (await w.http.get("/v1/stephttp/overview")).json()["data"]["total"]
        assert (total["began"], total["completed"]) == (1, 1)
        assert (total["first"]["p95_ms"], total["async_share"]) == (None, None)
        assert total["whole"]["p95_ms"] is not None
