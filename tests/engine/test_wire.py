"""Recorded traffic of real SDKs with the real server, replayed: equal answers are expected.

The rows of one run are sent in the order of the recording. When the engine calls the endpoint, it
gets the recorded answer, after the requests that the SDK made in that call. Time is turned by hand.
Status and JSON shape must be those of the real server, memos equal to the last byte of their JSON;
what differs must be in `differences.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .differences import DIFFERENCES, UNRECORDED, page
from .support import World, answer, wire, world

Row = dict[str, Any]
_KEY = "signkey-prod-6b2f9d0c4a5e7f8192a3b4c5d6e7f80112233445566778899aabbccddeeff001"
_SIGNED = ("goapi2", "jsapi2", "pyapi2")
_EVENT_KEY = "evk1"
UNASKED = {source for entry in DIFFERENCES for source in entry.unasked}
_TURNS = 60
_SLACK_MS = 10
"""The recording's clocks were read on both sides of a proxy."""
_END = {"op": "RunComplete", "id": "c", "data": {"status": 200, "headers": {}, "body": ""}}


def group(row: Row) -> str:
    name: str = row["source"].split()[0]
    return name.replace("app", "api")


def run_of(row: Row) -> str:
    """The run that a row is about; empty if it is about none."""
    if row["side"] == "app":
        return str(row["headers"]["x-run-id"])
    for part in (*row["url"].split("?")[0].split("/"), row["url"].partition("channel=")[2]):
        if part.startswith("01M8"):
            return str(part)
    sent = json.loads(row["body"]) if row["body"].startswith("{") else {}
    return str(sent.get("run_id", ""))


def runs() -> dict[str, list[Row]]:
    """The rows of each run, by recording and run id, in the order of time."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(wire(), key=lambda row: row["t"]):
        if row["source"] not in UNRECORDED:
            found[f"{group(row)} {run_of(row)}".strip()].append(row)
    return found


def shape(value: Any) -> Any:
    """What a JSON value looks like, without its texts and numbers."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return type(value).__name__


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def fault(row: Row, response: httpx2.Response) -> str:
    """How an answer differs from the recorded one; empty if it does not."""
    theirs, ours = parsed(row["answer"]), parsed(response.text)
    if response.status_code != row["status"]:
        return f"status {response.status_code}, recorded was {row['status']}: {response.text[:300]}"
    if row["url"].endswith(("/actions", "/batch")) or "/output" in row["url"]:
        if row["url"].endswith("/batch"):
            theirs, ours = ([event["data"] for event in events] for events in (theirs, ours))
        return "" if ours == theirs else f"{ours}, recorded was {theirs}"
    if "x-inngest-event-id-seed" in row["headers"]:
        # Its sender has fixed the ids.
        return "" if ours == theirs else f"{ours}, recorded was {theirs}"
    return "" if shape(ours) == shape(theirs) else f"{shape(ours)}, recorded was {shape(theirs)}"


class Replay:
    """The replay of one run.

    Attributes:
        faults: what differed, by row.
        played: the rows that were sent.
        unrecorded: calls of the endpoint whose answer is not in the recording.
    """

    def __init__(self, w: World, rows: list[Row]) -> None:
        self.w = w
        self.token = ""
        self.faults: dict[str, str] = {}
        self.played: set[str] = set()
        self.unrecorded = 0
        self.asked = asyncio.Event()
        self.calls = [row for row in rows if row["side"] == "app"]
        self.inside: dict[str, list[Row]] = defaultdict(list)
        self.outside: list[Row] = []
        for row in rows:
            if row["side"] == "engine":
                call = self._call_around(row)
                (self.inside[call["source"]] if call else self.outside).append(row)
        self.calls = [call for call in self.calls if call["source"] not in UNASKED]

    def _call_around(self, row: Row) -> Row | None:
        """The call of the endpoint in which the SDK sent `row`."""
        if "/output" in row["url"]:
            return None
        for call in self.calls:
            urls = [(other["method"], other["url"]) for other in self.inside[call["source"]]]
            began, ended = call["t"], call["t"] + call["ms"] + _SLACK_MS
            if began <= row["t"] <= ended and (row["method"], row["url"]) not in urls:
                return call
        return None

    async def endpoint(self, request: httpx2.Request) -> httpx2.Response:
        """Answer as the SDK did, when it was called like that."""
        target = request.headers.get("x-inngest-step-id")
        call = next(
            (c for c in self.calls if c["headers"].get("x-inngest-step-id") == target), None
        )
        if call is None:
            # What the SDK answered is not in the recording, but its requests are: they come first.
            self.unrecorded += 1
            await self.asked.wait()
            return answer(_END)
        self.calls.remove(call)
        assert request.method == call["method"]
        for row in self.inside[call["source"]]:
            await self.send(row)
        return httpx2.Response(call["status"], headers=call["answer_headers"], text=call["answer"])

    async def send(self, row: Row) -> None:
        """Send a recorded request, and hold the answer against the recorded one."""
        self.played.add(row["source"])
        url = row["url"] + (self.token if "/output" in row["url"] else "")
        # What the engine does beside may not be stored yet, so memos get some more chances.
        chances = 500 if row["url"].endswith("/actions") else 1
        problem = "not sent"
        data = None
        while problem and chances:
            chances -= 1
            response = await self.w.http.request(
                row["method"], url, content=row["body"], headers=row["headers"]
            )
            problem = fault(row, response)
            data = parsed(response.text)
            await asyncio.sleep(0)
        if problem:
            self.faults[row["source"]] = problem
        if isinstance(data, dict) and isinstance(data.get("data"), dict):
            self.token = data["data"].get("token", self.token)

    async def run(self) -> None:
        """Send everything that was sent outside of calls, and turn the clock until all is over."""
        readers = []
        start_ms = self.w.clock.now_ms()
        for row in self.outside:
            passed_ms = row["t"] - self.outside[0]["t"]
            self.w.clock.advance(max(0, start_ms + passed_ms - self.w.clock.now_ms()) / 1000)
            if "/output" in row["url"]:
                readers.append(asyncio.create_task(self.send(row)))
            else:
                await self.send(row)
        self.asked.set()
        for _ in range(_TURNS):
            await self.w.engine.idle()
            due_ms = await self.w.engine.store.read(
                lambda connection: connection.execute("SELECT min(due_ms) FROM timers").fetchone()[
                    0
                ]
            )
            if due_ms is None:
                break
            self.w.clock.advance(max(0, due_ms - self.w.clock.now_ms()) / 1000)
        else:
            raise AssertionError("the run does not end")
        await asyncio.gather(*readers)


@pytest.mark.parametrize(
    ("name", "rows"), [pytest.param(*run, id=run[0]) for run in runs().items()]
)
async def test_recorded_traffic(name: str, rows: list[Row]) -> None:
    keys: dict[str, Any] = {"signing_keys": (_KEY,), "event_keys": (_EVENT_KEY,)}
    async with world(**(keys if name.startswith(_SIGNED) else {})) as w:
        replay = Replay(w, rows)
        transport = httpx2.MockTransport(replay.endpoint)
        w.reach(transport)
        await replay.run()
    mine = {row["source"] for row in rows if row["side"] == "engine"}
    answers = {source for entry in DIFFERENCES for source in entry.answers} & mine
    recorded_calls = any(row["side"] == "app" for row in rows)
    assert replay.unrecorded == 0 or not recorded_calls
    # Both ways: what is listed must differ, so that the table cannot grow old.
    assert replay.faults.keys() == answers, replay.faults
    assert mine - replay.played == UNASKED & mine


def test_the_table_names_recorded_rows() -> None:
    known = {row["source"] for row in wire()}
    listed = {source for entry in DIFFERENCES for source in entry.answers}
    assert listed | UNASKED | UNRECORDED.keys() <= known


def test_the_page_of_differences_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "docs" / "differences.md"
    assert path.read_text() == page(), "run: python -m tests.engine.differences"
