"""The address of a result for browsers: a page until the run has ended; and as events."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx2
import pytest

from stephttp._wire import waiting_page
from stephttp._wire.stream_frames import WRITER, committed, pushed
from stephttp.engine.api.sdk import followed_result
from stephttp.engine.reading.progress import progress

from .support import DONE, RUN, A, World, answer, sleep, step, until, world
from .test_result_address import began, is_held

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
NAVIGATION = {**BROWSER, "sec-fetch-mode": "navigate"}
EVENTS = {"accept": "text/event-stream"}


async def shown(w: World, address: str, seconds: float, **headers: str) -> httpx2.Response:
    asked = asyncio.create_task(w.http.get(address, headers={**NAVIGATION, **headers}))
    await is_held(w)
    w.clock.advance(seconds)
    return await asked


def named(id_: str, name: str) -> dict[str, Any]:
    return step(id_, userland={"id": name})


async def test_a_browser_is_shown_a_page_that_comes_again() -> None:
    async with world() as w:
        address = await began(w, named(A, "charge <card>"), sleep(text="1h"))
        page = await shown(w, address, 1)
        assert page.status_code == 202
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers.get_list("content-security-policy") == [waiting_page.policy()]
        assert "<h1>POST /orders</h1>" in page.text
        assert ">charge &lt;card&gt;</li>" in page.text
        assert 'id="waiting">Waiting for <span>z</span>' in page.text
        again = re.search(r'refresh" content="1; url=([^"]+)"', page.text)
        assert again
        address = str(page.url.join(again[1].replace("&amp;", "&")))
        assert (await shown(w, address, 10)).status_code == 202
        w.script = [answer(DONE)]
        w.clock.advance(3600)
        await w.engine.idle()
        final = await w.http.get(address, headers=NAVIGATION)
        assert (final.status_code, final.text) == (201, "hi")
        assert final.headers["content-security-policy"].startswith("sandbox")


@pytest.mark.parametrize(
    ("headers", "is_page"),
    [
        (NAVIGATION, True),
        ({**BROWSER, "upgrade-insecure-requests": "1"}, True),  # without TLS
        (BROWSER, False),
        ({**BROWSER, "sec-fetch-mode": "cors", "upgrade-insecure-requests": "1"}, False),
        ({"accept": "*/*", "sec-fetch-mode": "navigate"}, False),
    ],
)
async def test_only_a_navigation_gets_the_page(headers: dict[str, str], is_page: bool) -> None:
    async with world(hold=1.0) as w:
        address = await began(w, step())
        asked = asyncio.create_task(w.http.get(address, headers=headers))
        await is_held(w)
        w.clock.advance(1)
        assert (await asked).status_code == (202 if is_page else 303)


async def test_runs_of_other_sdks_have_no_page() -> None:
    async with world() as w:
        token = (await w.post(step()))["token"]
        asked = asyncio.create_task(
            w.http.get(f"/v1/http/runs/{RUN}/output?token={token}", headers=NAVIGATION)
        )
        await is_held(w)
        w.clock.advance(300)
        assert (await asked).json()["status"] == "running"


def events(text: str) -> list[tuple[str, int, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


async def push(w: World, frames: bytes, before: int) -> None:
    response = await w.http.post(
        f"/v1/realtime/publish/tee?channel={RUN}",
        content=frames,
        headers={WRITER: f"first {before}"},
    )
    assert response.status_code == 200, response.text


class Follower:
    """A client that reads events as they come.

    Attributes:
        text: what has come so far.
        headers: of the answer.
    """

    def __init__(self, w: World, address: str, **headers: str) -> None:
        self.text = ""
        self.headers: dict[bytes, bytes] = {}
        path, _, query = address.partition("?")
        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in {**EVENTS, **headers}.items()],
        }  # fmt: skip
        self.reading = asyncio.create_task(w.app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
        self.text += message.get("body", b"").decode()

    async def has(self, text: str, count: int = 1) -> None:
        await until(lambda: self.text.count(text) >= count)


async def test_one_who_follows_gets_steps_waits_pushes_and_the_answer() -> None:
    async with world(stream_lifetime=7200.0) as w:
        address = await began(w, named(A, "charge"), sleep(text="1h"))
        follower = Follower(w, address)
        await follower.has("event: waiting")
        await push(w, pushed(b'{"token":1}') + pushed(b"2", A) + committed(A), 0)
        await follower.has("event: commit")
        w.script = [answer(DONE)]
        w.clock.advance(3600)
        await follower.reading
        assert follower.headers[b"content-type"].startswith(b"text/event-stream")
        assert follower.headers[b"access-control-allow-origin"] == b"*"
        found = events(follower.text)
        shown = [(name, data) for name, _, data in found]
        assert shown[:5] == [
            ("step", {"number": 1, "id": "charge", "state": "completed"}),
            ("waiting", {"steps": ["z"]}),
            ("stream", {"data": {"token": 1}}),
            ("stream", {"data": 2, "hashedStepId": A}),
            ("commit", {"hashedStepId": A}),
        ]
        assert ("step", {"number": 2, "id": "z", "state": "completed"}) in shown[5:]
        assert ("waiting", {"steps": []}) in shown[5:]
        name, last, data = found[-1]
        assert (name, data["status"]) == ("response", "succeeded")
        assert (data["response"]["statusCode"], data["response"]["body"]) == (201, "hi")

        late = events((await w.http.get(address, headers=EVENTS)).text)
        pushes = [event for event in found if event[0] in ("stream", "commit")]
        assert [event for event in late if event[0] in ("stream", "commit")] == pushes
        assert late[-1] == found[-1]
        # Wherever a connection breaks, the rest comes with the next.
        for cut in range(1, len(late)):
            asked = {**EVENTS, "last-event-id": str(late[cut - 1][1])}
            rest = events((await w.http.get(address, headers=asked)).text)
            seen = [event for event in late[:cut] + rest if event[0] in ("stream", "commit")]
            assert seen == pushes, cut
        again = await w.http.get(address, headers={**EVENTS, "last-event-id": str(pushes[0][1])})
        assert [event for event in events(again.text) if event[0] in ("stream", "commit")] == (
            pushes[1:]
        )
        assert events(again.text)[-1][1] == last


async def test_a_push_does_not_let_those_who_follow_read_all_steps_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def counted(connection: Any, **query: Any) -> Any:
        asked.append(query["run_id"])
        return progress(connection, **query)

    monkeypatch.setattr(followed_result, "progress", counted)
    async with world(stream_lifetime=7200.0) as w:
        follower = Follower(w, await began(w, named(A, "charge"), sleep(text="1h")))
        await follower.has("event: waiting")
        before = len(asked)
        for number in range(5):
            await push(w, pushed(b"1"), number)
            await follower.has("event: stream", number + 1)
        assert len(asked) == before
        follower.reading.cancel()


async def test_a_stream_of_events_is_kept_alive_and_ends_when_its_time_is_over() -> None:
    async with world(stream_keep_alive=15.0, stream_lifetime=40.0) as w:
        address = await began(w, step())
        follower = Follower(w, address)
        await follower.has("event: step")
        for count in (1, 2):
            w.clock.advance(15)
            await follower.has(":\n\n", count)
        w.clock.advance(15)
        await follower.reading
        assert follower.text.startswith("retry: 1000\n\n")
        assert [name for name, *_ in events(follower.text)] == ["step"]


async def test_a_stream_of_events_ends_without_an_answer_when_the_engine_stops() -> None:
    async with world() as w:
        follower = Follower(w, await began(w, step()))
        await follower.has("event: step")
        w.engine.drain()
        await follower.reading
        assert "response" not in follower.text
