"""`Settings.run_deadline`: how long a whole run may take."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from stephttp.engine import Settings, VirtualClock
from stephttp.errors import ConfigurationError

from .support import DONE, OTHER, RUN, A, B, answer, new_run, sleep, step, until, world

MESSAGE = "the run did not end within 3600 s"
HOUR = 3600


async def test_a_run_that_waits_too_long_fails_and_its_caller_is_answered() -> None:
    async with world(run_deadline=HOUR) as w:
        token = (await w.post(step(A), sleep(text="2h")))["token"]
        reading = asyncio.create_task(w.output(token))
        assert await w.after(HOUR - 1) == []
        assert (await w.run())["status"] == "Running"
        assert await w.after(1) == []
        result = await reading
        assert result.status_code == 500
        assert result.json()["error"] == {"name": "DeadlineError", "message": MESSAGE}
        assert (await w.run())["status"] == "Failed"
        assert (await w.report(step(B))).status_code == 409
        # Its sleep is forgotten with it.
        assert await w.after(HOUR) == []


async def test_a_run_whose_first_process_is_silent_fails_too() -> None:
    async with world(run_deadline=HOUR) as w:
        await w.post(step(A))
        await w.post(step(A), run_id=OTHER)
        assert (await w.report(DONE)).status_code == 200
        await w.after(HOUR)
        assert (await w.run(OTHER))["error"] == {"name": "DeadlineError", "message": MESSAGE}
        assert (await w.run())["status"] == "Completed"


async def test_an_endpoint_that_is_never_reached_ends_at_the_deadline() -> None:
    async with world(run_deadline=60) as w:
        await w.post(sleep(text="1s"))
        w.script = [httpx2.ConnectError("refused")] * 100
        for _ in range(59):
            await w.after(1)
        assert (await w.run())["status"] == "Running"
        await w.after(1)
        assert (await w.run())["status"] == "Failed"
        w.script = []
        assert await w.after(HOUR) == []


async def test_calls_under_way_do_not_hold_it_up_and_their_answers_come_too_late() -> None:
    async with world(run_deadline=HOUR, concurrency=1) as w:
        entered, reply = asyncio.Event(), asyncio.Event()

        async def endpoint(request: httpx2.Request) -> httpx2.Response:
            entered.set()
            await reply.wait()
            return answer(DONE)

        w.reach(httpx2.MockTransport(endpoint))
        tokens = [(await w.post(sleep(text="1s"), run_id=run))["token"] for run in (RUN, OTHER)]
        w.clock.advance(1)
        await entered.wait()
        readers = [
            asyncio.create_task(w.output(token, run_id=run))
            for token, run in zip(tokens, (RUN, OTHER), strict=True)
        ]
        await until(lambda: len(w.engine.waiters) == 2)
        w.clock.advance(HOUR - 1)
        for result in await asyncio.gather(*readers):
            assert result.json()["error"]["name"] == "DeadlineError"
        reply.set()
        await w.engine.idle()
        assert [(await w.run(run))["status"] for run in (RUN, OTHER)] == ["Failed", "Failed"]


async def test_a_run_that_was_invoked_has_a_deadline_of_its_own() -> None:
    async with world(run_deadline=HOUR) as w:
        await w.post(DONE, run_id=OTHER, data={"fn": "child"})
        await w.post(sleep(text="30m"))
        invoke = {"op": "InvokeFunction", "id": A, "opts": {"function_id": "child", "payload": {}}}
        w.script = [answer([invoke]), answer([sleep(B, "2h")])]
        assert len(await w.after(HOUR / 2)) == 2
        statuses = "SELECT status FROM runs ORDER BY seq"
        for expected in (["completed", "failed", "async"], ["completed", "failed", "failed"]):
            await w.after(HOUR / 2)
            rows = await w.engine.store.read(lambda c: c.execute(statuses).fetchall())
            assert [status for (status,) in rows] == expected


async def test_the_setting_holds_for_runs_that_are_there_already(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "engine.db"
    async with world(clock, path) as w:
        await w.post(sleep(text="100h"))
        await w.after(HOUR)
    async with world(clock, path, run_deadline=HOUR) as w:
        await w.engine.idle()
        assert (await w.run())["error"]["name"] == "DeadlineError"


async def test_many_at_once() -> None:
    async with world(run_deadline=HOUR) as w:
        for number in range(250):
            run_id = f"01M81KWY2JTNRXZTV817ZB{number:04}"
            response = await w.http.post("/v1/checkpoint", json=new_run(sleep(), run_id=run_id))
            assert response.status_code == 200
        w.script = [answer([sleep(B, "2h")])] * 250
        await w.after(5)
        await w.after(HOUR)
        count = "SELECT count(*) FROM runs WHERE status = 'failed'"
        failed = await w.engine.store.read(lambda connection: connection.execute(count).fetchone())
        assert failed == (250,)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["run_deadline", "call_timeout", "connect_timeout", "retain"])
def test_times_that_make_no_sense(name: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings(**{name: seconds})  # type: ignore[arg-type]
