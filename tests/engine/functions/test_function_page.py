"""The page of one function, and its forms."""

from __future__ import annotations

import html
import re
from typing import Any

import httpx2

from tests.engine.functions.support import (
    body_of,
    config,
    fails,
    invoke,
    only,
    register,
    returns,
    send,
)
from tests.engine.functions.test_function_pages import page
from tests.engine.support import World, answer, world

EVIL = "<script>alert(1)</script>"


async def function_id(w: World, slug: str = "shop-pack") -> str:
    data = (await w.http.get("/v1/stephttp/functions")).json()["data"]
    (found,) = (one["function_id"] for one in data if one["function"] == slug)
    return str(found)


async def submit(w: World, path: str, **fields: Any) -> httpx2.Response:
    """Send a form, as a browser without scripts does."""
    found = re.search(r'name="csrf" value="(\w+)"', (await w.http.get("/events/new")).text)
    assert found
    return await w.http.post(path, data={"csrf": found.group(1), **fields})


def editor(text: str) -> str:
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", text, re.DOTALL)
    assert found
    return html.unescape(found.group(1))


async def test_it_shows_what_starts_a_function_and_its_options() -> None:
    limits = {"limit": 3, "key": "event.data.user"}
    async with world() as w:
        await register(
            w,
            config(
                "shop-pack",
                {"event": "order/paid", "expression": "event.data.n > 1"},
                "order/*",
                concurrency=[limits],
                retries=0,
            ),
        )
        path = f"/functions/{await function_id(w)}"
        text = html.unescape(await page(w, path))
        assert "App shop Registered" in text
        assert "Function shop-pack" in text
        assert "The event order/paid if event.data.n > 1" in text
        assert "The event order/*" in text
        assert "Retries A step that fails is not tried again." in text
        assert "At most 3 calls at a time for each value of event.data.user ." in text
        assert "Called at http://app.test/api/inngest" in text
        assert "It has had no run yet." in text
        assert text == html.unescape(await page(w, "/functions/shop-pack")), "by its slug, too"
        assert f'href="{path}"' in (await w.http.get("/apps")).text


async def test_it_shows_when_time_starts_a_function_next() -> None:
    async with world() as w:
        timed = {"cron": "TZ=Europe/Paris 30 9 * * *", "jitter": "90s"}
        await register(w, config("shop-report", "order/paid", timed), config("shop-pack", "x"))
        path = f"/functions/{await function_id(w, 'shop-report')}"
        first = "The time TZ=Europe/Paris 30 9 * * * , up to 1 min 30 s later"
        text = await page(w, path)
        assert re.search(rf"{re.escape(first)}, next 2027-01-15 08:3[01]:\d\d UTC", text), text
        assert "next 2027-01-15 08:3" in await page(w, "/apps")
        await submit(w, f"{path}/pause")
        text = await page(w, path)
        assert first in text
        assert "next 2027" not in text
        assert "next 2027" not in await page(w, "/apps")


async def test_it_is_invoked_from_the_editor() -> None:
    async with world(script=[returns("packed")]) as w:
        await register(w, config("shop-pack", "order/paid"))
        path = f"/functions/{await function_id(w)}"
        assert editor((await w.http.get(path)).text) == "{\n  \n}"
        made = await submit(w, path, data='{"id": "o17"}')
        run_path, _, query = made.headers["location"].partition("?")
        assert query == "notice=invoked"
        await w.engine.idle()
        assert body_of(w.calls[0])["event"]["data"] == {"id": "o17"}
        text = await page(w, made.headers["location"])
        assert "The function was invoked; this is its run." in text
        assert "packed" in text
        shown = (await w.http.get(path)).text
        assert f'href="{run_path}"' in shown
        assert editor(shown) == '{\n  "id": "o17"\n}', "the data of the latest run"


async def test_what_cannot_be_sent_stays_in_the_editor() -> None:
    async with world() as w:
        await register(w, config("shop-pack", "order/paid"))
        path = f"/functions/{await function_id(w)}"
        for written, reason in (
            ('{\r\n  "id": "ö1", "n": \r\n}', "character (line 3, column 1)"),
            ('{"ö": "x" 1}', "(line 1, column 11)"),
            (f'["{EVIL}"]', "data: expected an object, got list"),
            ('"' + "x" * 50, "data: not valid JSON: Input data was truncated"),
        ):
            wrong = await submit(w, path, data=written)
            assert wrong.status_code == 400
            assert editor(wrong.text) == written.replace("\r\n", "\n")
            assert reason in html.unescape(wrong.text)
            assert 'aria-invalid="true"' in wrong.text
            assert "data-live=" not in wrong.text, "a page that looks again loses the reason"
            assert EVIL not in wrong.text
        assert (await w.http.get("/v1/runs")).json()["data"] == []


async def test_the_data_of_an_invocation_is_shown_without_what_the_engine_adds() -> None:
    async with world(script=[answer([invoke(function="shop-pack")]), returns(1), returns(2)]) as w:
        await register(w, config("shop-pack"), config("shop-parent", "go"))
        await send(w, "go")
        shown = (await w.http.get(f"/functions/{await function_id(w)}")).text
        assert editor(shown) == '{\n  "n": 1\n}'
        assert "Only callers who name it" in shown


async def test_data_that_is_too_long_is_not_put_into_the_editor() -> None:
    async with world(script=[returns(1)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        await send(w, "order/paid", {"text": "x" * 30_000})
        assert editor((await w.http.get("/functions/shop-pack")).text) == "{\n  \n}"


async def test_it_is_paused_and_resumed() -> None:
    async with world(script=[returns(1)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        path = f"/functions/{await function_id(w)}"
        done = await submit(w, f"{path}/pause")
        assert done.headers["location"] == f"{path}?notice=function-paused"
        text = await page(w, done.headers["location"])
        assert "Nothing starts it until it is resumed." in text
        assert "It cannot be invoked now." in text
        assert "starts with order/paid Paused" in await page(w, "/apps")
        late = await submit(w, path, data="{}")
        assert late.status_code == 409
        assert "is not started: it is paused" in late.text
        done = await submit(w, f"{path}/resume")
        assert "started again" in await page(w, done.headers["location"])
        assert "starts with order/paid 20" in await page(w, "/apps"), "its time follows"
        await only(w, await send(w, "order/paid"))


async def test_a_function_that_its_app_has_withdrawn() -> None:
    async with world(script=[fails(400, headers={"x-inngest-no-retry": "true"})]) as w:
        await register(w, config("shop-pack", "order/paid"))
        run = await only(w, await send(w, "order/paid"))
        path = f"/functions/{await function_id(w)}"
        await register(w, config("shop-mail", "never"))
        text = await page(w, path)
        assert "Not started: its app does not register it any more" in text
        assert run["run_id"] in text
        assert "Failed 1" in text
        assert not re.search(r"Pause\b|Resume\b", text.partition("Not started:")[2])
        for what in ("", "/pause", "/resume"):
            assert (await submit(w, f"{path}{what}", data="{}")).status_code == 404


async def test_what_apps_say_is_text() -> None:
    async with world() as w:
        function = config(
            f"shop {EVIL}", {"event": EVIL, "expression": f"event.data.x == '{EVIL}'"}
        )
        await register(w, {**function, "name": EVIL}, appname=EVIL)
        one = await function_id(w, f"shop {EVIL}")
        text = (await w.http.get(f"/functions/{one}")).text
        assert "alert(1)" in text
        assert "<script>alert" not in text
        missing = await w.http.get("/functions/<script>alert(1)")
        assert missing.status_code == 404
        assert "<script>alert" not in missing.text
