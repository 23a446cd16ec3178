"""A disk that is full, or takes no writes: refused with the reason, and good again by itself."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stephttp._wire.ids import hash_step_id

from .support import DONE, OTHER, RUN, A, B, World, answer, new_run, sleep, step, until, world

OTHER_SLEEP = hash_step_id("y")
LARGE = {"body": base64.b64encode(b"x" * 200_000).decode()}


def pragma(w: World, text: str) -> Any:
    """Outside transactions, where these pragmas work."""
    assert w.engine.store._writer is not None
    return w.engine.store._writer.connections[0].execute(f"PRAGMA {text}").fetchone()


def fill(w: World) -> None:
    """No further page fits, as on a disk without space."""
    pragma(w, f"max_page_count = {pragma(w, 'page_count')[0]}")


def make_room(w: World) -> None:
    pragma(w, "max_page_count = 1000000")


def make_read_only(w: World) -> None:
    pragma(w, "query_only = ON")


def make_writable(w: World) -> None:
    pragma(w, "query_only = OFF")


FAULTS = [
    pytest.param(fill, make_room, "database or disk is full", id="full"),
    pytest.param(make_read_only, make_writable, "attempt to write a readonly", id="read-only"),
]


@pytest.mark.parametrize(("fault", "repair", "reason"), FAULTS)
async def test_requests_are_refused_and_reads_go_on(
    tmp_path: Path, fault: Any, repair: Any, reason: str
) -> None:
    async with world(path=tmp_path / "db", script=[answer([DONE])]) as w:
        token = (await w.post(step(), sleep()))["token"]
        before = await w.memos()
        fault(w)
        message = {"run_id": OTHER, "steps": [sleep()]}
        event = {"domain": "http://app.test", "method": "POST", **LARGE}
        for path, body in (
            ("/v1/checkpoint", {**message, "event": {"data": event}}),
            (f"/v1/checkpoint/{RUN}/steps", {"steps": [step(B, "x" * 200_000)]}),
        ):
            refused = await w.http.post(path, json=body)
            assert refused.status_code == 503, refused.text
            assert reason in refused.json()["error"]
            assert refused.headers["retry-after"] == "1"
        assert await w.memos() == before == {A: {"data": 1}}
        assert (await w.run())["status"] == "Running"
        assert (await w.http.get(f"/v1/runs/{OTHER}")).status_code == 404
        assert (await w.http.get("/health")).status_code == 200
        repair(w)
        assert (await w.report(step(B, "x" * 200_000))).status_code == 200
        await w.after(5)
        assert (await w.output(token)).text == "hi"


@pytest.mark.parametrize(("fault", "repair", "reason"), FAULTS)
async def test_an_answer_is_held_until_it_can_be_stored(
    tmp_path: Path, fault: Any, repair: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The endpoint did its work; it must not be asked to do it again."""
    async with world(path=tmp_path / "db") as w:

        def breaks(request: Any) -> Any:
            fault(w)
            return answer([step(B, "y" * 200_000), sleep(OTHER_SLEEP, "1h")])

        w.script = [breaks]
        await w.post(step(), sleep())
        w.clock.advance(5)
        await until(lambda: "holding an answer" in caplog.text)
        assert reason in caplog.text
        for _ in range(3):
            w.clock.advance(1)
        repair(w)
        w.clock.advance(1)
        await w.engine.idle()
        assert len(w.calls) == 1
        assert (await w.memos())[B] == {"data": "y" * 200_000}


async def test_due_work_waits_for_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(path=tmp_path / "db", script=[answer([DONE])]) as w:
        await w.post(step(), sleep())
        make_read_only(w)
        w.clock.advance(5)
        await until(lambda: "cannot look for due work" in caplog.text)
        assert w.calls == []
        make_writable(w)
        w.clock.advance(1)
        await w.engine.idle()
        assert len(w.calls) == 1
        assert (await w.run())["status"] == "Completed"


async def test_what_was_acknowledged_before_it_filled_is_there(tmp_path: Path) -> None:
    path = tmp_path / "db"
    stored = []
    async with world(path=path) as w:
        pragma(w, f"max_page_count = {pragma(w, 'page_count')[0] + 60}")
        for number in range(40):
            run_id = RUN[:-2] + f"{number:02d}"
            body = new_run(
                step(), run_id=run_id, data={"body": base64.b64encode(b"x" * 9000).decode()}
            )
            response = await w.http.post("/v1/checkpoint", json=body)
            if response.status_code == 200:
                stored.append(response.json()["data"]["run_id"])
        assert 0 < len(stored) < 40, "some fit, some do not"
    connection = sqlite3.connect(path)
    found = [run for (run,) in connection.execute("SELECT run_id FROM runs ORDER BY run_id")]
    connection.close()
    assert found == stored
