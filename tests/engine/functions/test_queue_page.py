"""What waits behind which limit, as pages show it."""

from __future__ import annotations

import html
import re

from tests.engine.functions.support import config, register, returns, send
from tests.engine.functions.test_function_pages import page
from tests.engine.support import World, sleep, world

USER = "event.data.user"


async def shown(w: World, path: str = "/queues") -> str:
    return html.unescape(await page(w, path))


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
            r"shop-(late|batch) a (debounce|batch)\D*? (Ada|Grace|–) (\d) (\S+ \S+)", text
        )
        assert rows == [
            ("late", "debounce", "–", "3", "2027-01-15 08:00:12"),
            ("batch", "batch", "Ada", "2", "2027-01-15 08:01:00"),
            ("batch", "batch", "Grace", "1", "2027-01-15 08:01:02"),
        ]
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
        for written in ("&lt;script&gt;alert(1)", "{&#34;a&#34;:[1]}", ">7<", ">–<"):
            assert written in text
