"""What pages show, and what their forms do; `tests/browser` looks at them as people do."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import pytest

from stephttp.engine import VirtualClock
from stephttp.engine.dashboard import pages
from stephttp.engine.dashboard.assets import ASSETS
from tests.engine.support import (
    DONE,
    RUN,
    A,
    World,
    Z,
    answer,
    complete,
    sleep,
    step,
    step_error,
    world,
)

EVIL = "<script>alert(1)</script>"
WAIT: dict[str, Any] = {
    "op": "WaitForEvent", "id": A, "name": "w", "userland": {"id": "w"},
    "opts": {"event": "order/packed", "if": f"async.data.id == '{EVIL}'", "timeout": "3d"},
}  # fmt: skip


async def send(w: World, path: str, **fields: Any) -> Any:
    found = re.search(r'name="csrf" value="(\w+)"', (await w.http.get("/events/new")).text)
    assert found
    return await w.http.post(path, data={"csrf": found.group(1), **fields})


@pytest.mark.parametrize("path", ["/", "/?span=week", "/runs", "/events", "/events/new", "/apps"])
async def test_pages_of_an_engine_that_has_seen_nothing(path: str) -> None:
    async with world() as w:
        response = await w.http.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/html")


async def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    async with world() as w:
        await w.post(step(Z), WAIT)
        for path in ("/", "/runs", f"/runs/{RUN}", "/events", "/apps", "/login"):
            response = await w.http.get(path, follow_redirects=True)
            policy = response.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-frame-options"] == "DENY"
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", response.text)
            assert not re.search(r'(?:src|href)="(?:https?:)?//', response.text)


async def test_what_comes_from_outside_is_text() -> None:
    data = {"path": f"/{EVIL}", "query_params": EVIL, "fn": EVIL, "ip": EVIL, "content_type": EVIL}
    failed = step_error(error={"name": EVIL, "message": EVIL, "stack": EVIL})
    async with world() as w:
        await w.post(step(Z, data=EVIL, userland={"id": EVIL}), failed, WAIT, data=data)
        event = {"name": EVIL, "data": {"x": EVIL}, "id": EVIL}
        (event_id,) = (await w.http.post("/e/key", json=event)).json()["ids"]
        paths = ["/", "/runs", f"/runs/{RUN}", "/events", f"/events/{event_id}", "/apps"]
        for path in [*paths, f"/runs?q={EVIL}", f"/events/new?name={EVIL}"]:
            text = (await w.http.get(path)).text
            assert "alert(1)" in text or path in ("/", "/apps")
            assert "<script>alert" not in text, path


async def test_a_run_that_waits_for_an_event_can_be_sent_it() -> None:
    async with world(script=[answer([DONE])]) as w:
        await w.post({**WAIT, "opts": {**WAIT["opts"], "if": "async.data.id == 'o1'"}})
        page = (await w.http.get(f"/runs/{RUN}")).text
        assert "order/packed" in page
        assert "&#34;id&#34;: &#34;o1&#34;" in page, "data that fulfils the condition"
        wrong = await send(w, f"/runs/{RUN}/send", kind="event", name="order/packed", data="{")
        assert wrong.status_code == 400
        assert "data: not valid JSON" in wrong.text
        sent = await send(
            w, f"/runs/{RUN}/send", kind="event", name="order/packed", data='{"id": "o1"}'
        )
        assert sent.headers["location"] == f"/runs/{RUN}?notice=sent"
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"


async def test_a_wait_can_be_ended_as_if_it_had_timed_out() -> None:
    async with world(script=[answer([DONE])]) as w:
        await w.post(WAIT)
        await send(w, f"/runs/{RUN}/resume", step=A, why="time-out")
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"


async def test_a_signal_can_be_sent() -> None:
    wait = {"op": "WaitForSignal", "id": A, "name": "s", "opts": {"signal": "go", "timeout": "1d"}}
    async with world(script=[answer([DONE])]) as w:
        await w.post(wait)
        assert "Send the signal" in (await w.http.get(f"/runs/{RUN}")).text
        sent = await send(w, f"/runs/{RUN}/send", kind="signal", name="go", data="1")
        assert sent.headers["location"].endswith("notice=signalled")
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"


async def test_resume_cancel_rerun() -> None:
    async with world(script=[answer([DONE])]) as w:
        await w.post(step(), sleep(text="1h"))
        assert "Resume now" in (await w.http.get(f"/runs/{RUN}")).text
        await send(w, f"/runs/{RUN}/resume")
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"
        late = await send(w, f"/runs/{RUN}/cancel")
        assert late.headers["location"].endswith("notice=was-over")
        w.script = [answer([complete({"status": 200})])]
        again = await send(w, f"/runs/{RUN}/rerun", body="new")
        path = again.headers["location"].partition("?")[0]
        await w.engine.idle()
        assert w.calls[-1].content == b"new"
        page = (await w.http.get(path)).text
        assert f'<a href="/runs/{RUN}">{RUN}</a>' in page
        assert "Resume now" not in page


async def test_pages_stay_short_where_each_path_is_an_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "_MOST_ENDPOINTS", 2)
    async with world() as w:
        for number in range(5):
            run_id = f"{RUN[:-1]}{number}"
            await w.post(step(), DONE, run_id=run_id, data={"path": f"/orders/{number}"})
            w.clock.advance(1)
        for path, told in (("/", "3 more had runs"), ("/apps", "3 more are known")):
            page = (await w.http.get(path)).text
            assert page.count("/runs?endpoint=POST%20/orders/") == 2
            assert told in page
        chosen = (await w.http.get("/runs?endpoint=POST /orders/0")).text
        options = re.findall(r"<option( selected)?>POST /orders/(\d)", chosen)
        assert options == [(" selected", "0"), ("", "3"), ("", "4")]


async def test_what_is_too_long_to_be_edited_is_not_sent_twice() -> None:
    async with world() as w:
        body = b64encode(b"x" * 30_000).decode()
        await w.post(step(opts={"input": ["y" * 30_000]}), data={"body": body})
        page = (await w.http.get(f"/runs/{RUN}")).text
        for letter in "xy":
            assert letter * 19_000 in page
            assert page.count(letter * 1_000) <= 21, "once, as far as it is shown"
        assert page.count("too long to be edited here") == 2


async def test_rerun_from_a_step_with_an_output() -> None:
    async with world(script=[answer([DONE])]) as w:
        await w.post(step(data=1), DONE)
        fields = {"step": A, "use": "output", "value": '{"edited": true}'}
        assert (await send(w, f"/runs/{RUN}/rerun-from", **{**fields, "use": "x"})).is_error
        assert (await send(w, f"/runs/{RUN}/rerun-from", **{**fields, "value": "{"})).is_error
        answered = await send(w, f"/runs/{RUN}/rerun-from", **fields)
        new = answered.headers["location"].split("/")[2].partition("?")[0]
        steps = (await w.http.get(f"/v1/runs/{new}/steps")).json()["data"]
        assert [one["step_id"] for one in steps] == [A]
        page = (await w.http.get(f"/runs/{new}")).text
        assert '<span class="j-key">&#34;edited&#34;</span>' in page


async def test_many_at_once() -> None:
    async with world() as w:
        ids = []
        for number in range(3):
            run_id = RUN[:-1] + str(number)
            ids.append(run_id)
            await w.post(sleep(text="1h"), run_id=run_id)
        none = await send(w, "/runs/bulk", do="cancel")
        assert none.headers["location"] == "/runs?notice=none-chosen"
        two = await send(w, "/runs/bulk", do="cancel", run=ids[:2], state="waiting")
        assert two.headers["location"] == "/runs?state=waiting&notice=bulk-cancel&n=2"
        assert [(await w.run(one))["status"] for one in ids] == ["Cancelled"] * 2 + ["Running"]
        w.script = [answer([DONE])] * 2
        rest = await send(w, "/runs/bulk", do="rerun", scope="all", state="cancelled")
        assert "notice=bulk-rerun&n=2" in rest.headers["location"]
        await w.engine.idle()
        page = (await w.http.get(rest.headers["location"])).text
        assert "Run again: 2." in page
        assert (await send(w, "/runs/bulk", do="delete")).status_code == 400
        everything = await send(w, "/runs/bulk", do="rerun", scope="all")
        assert everything.status_code == 400, "the API wants all=true for that"


async def test_an_event_from_the_editor() -> None:
    async with world() as w:
        for fields, complaint in (
            ({"name": "", "data": "{}"}, "name: "),
            ({"name": "a", "data": "{"}, "data: not valid JSON"),
            ({"name": "a", "data": "[1]"}, "data"),
        ):
            refused = await send(w, "/events/new", **fields)
            assert refused.status_code == 400
            assert complaint in refused.text
        assert (await w.http.get("/v1/events")).json()["data"] == []
        sent = await send(w, "/events/new", name="a/b", data='{"x": 1}', id="mine")
        page = await w.http.get(sent.headers["location"])
        assert "The event was sent." in page.text
        assert "mine" in page.text


async def test_pages_that_are_not_there() -> None:
    async with world() as w:
        for path, status in (
            (f"/runs/{RUN}", 404), ("/runs/x", 400), ("/events/x", 404), ("/?span=x", 400),
            ("/runs?state=x", 400), ("/runs?older=x", 400), (f"/runs/{RUN}/raw/output", 404),
        ):  # fmt: skip
            response = await w.http.get(path)
            assert response.status_code == status, path
            assert "<h1>Not" in response.text


async def test_values_can_be_kept() -> None:
    async with world() as w:
        await w.post(step(data=EVIL), DONE)
        saved = await w.http.get(f"/runs/{RUN}/raw/output?step={A}")
        assert saved.json() == EVIL
        assert saved.headers["content-type"] == "application/octet-stream"
        assert saved.headers["content-disposition"].startswith("attachment")
        assert (await w.http.get(f"/runs/{RUN}/raw/request")).content == b'{"a": 1}'
        assert (await w.http.get(f"/runs/{RUN}/raw/nothing")).status_code == 404


async def test_a_list_has_pages() -> None:
    async with world() as w:
        for number in range(52):
            await w.post(DONE, run_id=f"01M81KWY2JTNRXZTV817ZB7{number:03d}")
        first = (await w.http.get("/runs")).text
        assert first.count("data-row>") == 50
        older = re.search(r'href="(/runs\?older=[^"]+)"', first)
        assert older
        second = (await w.http.get(older.group(1))).text
        assert second.count("data-row>") == 2
        assert 'rel="prev"' in second


async def test_assets() -> None:
    async with world() as w:
        assert {"tokens.css", "main.js", "vendor/htmx/htmx.min.js"} <= set(ASSETS)
        for name, asset in ASSETS.items():
            response = await w.http.get(f"/static/{name}?v={asset.version}")
            assert response.content == asset.content
            assert "immutable" in response.headers["cache-control"]
        other = await w.http.get("/static/main.js?v=old")
        assert other.headers["cache-control"] == "public, max-age=3600"
        for name in ("nothing.css", "../routes.py", "..%2froutes.py", "vendor/README.md"):
            assert (await w.http.get(f"/static/{name}")).status_code == 404


async def test_changes_are_told() -> None:
    async with world(VirtualClock()) as w:
        request = w.http.build_request("GET", "/live")
        stream = live_stream(w)
        assert await anext(stream) == b"event: hello\ndata: 0\n\n"
        await w.post(step(), sleep())
        assert f'"runs":["{RUN}"]'.encode() in await anext(stream)
        assert request.url.path == "/live"
        await stream.aclose()


def live_stream(w: World) -> Any:
    """The stream that `/live` answers with; the test client would wait for its end."""
    from stephttp.engine.dashboard.updates import stream

    return stream(w.engine, w.clock.now_ms() + 60_000).body_iterator
