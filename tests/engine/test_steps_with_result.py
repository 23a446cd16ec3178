"""Answers that hold finished steps and the end of the run: stored together, or kept for a retry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .support import DONE, RUN, A, B, answer, complete, sleep, step, world

FAILED = complete({"status": 500, "body": "failed"})


async def test_the_steps_are_stored_with_the_end_of_the_run() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["token"]
        w.script = [answer([step(A, 1), step(B, 2), DONE])]
        assert len(await w.after(1)) == 1
        result = await w.output(token)
        assert (result.status_code, result.headers["x-a"], result.text) == (201, "b", "hi")
        told = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert {one["step_id"]: one["status"] for one in told}.items() >= {
            A: "Completed", B: "Completed",
        }.items()  # fmt: skip


async def test_steps_of_a_failed_attempt_are_kept_and_the_handler_is_called_again() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s"), retries=1, reads_state=True))["token"]
        w.script = [answer([step(A, 1), FAILED], 500)]
        assert len(await w.after(1)) == 1
        run = await w.run()
        assert (run["status"], run["attempt"]) == ("Running", 1)
        assert (await w.memos())[A] == {"data": 1}
        w.script = [answer([step(B, 2), FAILED], 500)]
        assert len(await w.after(1)) == 1
        assert (await w.run())["status"] == "Failed"
        result = await w.output(token)
        assert (result.status_code, result.text) == (500, "failed")
        told = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert {A, B} <= {one["step_id"] for one in told if one["status"] == "Completed"}


async def test_a_failed_attempt_asks_for_its_own_delay() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), retries=1)
        w.script = [answer([step(A), FAILED], 500, retry_after="60"), answer(DONE)]
        assert len(await w.after(1)) == 1
        assert await w.after(59) == []
        assert len(await w.after(1)) == 1
        assert (await w.run())["status"] == "Completed"


@pytest.mark.parametrize("status", [206, 500])
async def test_a_step_that_cannot_be_stored_ends_the_run_and_nothing_of_it_is_stored(
    status: int,
) -> None:
    async with world(max_step_output=100) as w:
        token = (await w.post(sleep(text="1s"), retries=3))["token"]
        end: Any = DONE if status == 206 else FAILED
        w.script = [answer([step(A, 1), step(B, "x" * 100), end], status)]
        assert len(await w.after(1)) == 1
        assert (await w.run())["status"] == "Failed"
        assert "more than 100 bytes" in json.dumps((await w.output(token)).json())
        told = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert {A, B}.isdisjoint(one["step_id"] for one in told)


async def test_the_answer_of_a_call_that_was_overtaken_changes_nothing() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), retries=3)

        def endpoint(request: Any) -> Any:
            return answer([step(A, 1), FAILED], 500)

        w.script = [endpoint]
        settle = w.engine.executor._settle

        async def cancelled_first(*args: Any) -> None:
            await w.engine.cancel(RUN)
            await settle(*args)

        w.engine.executor._settle = cancelled_first
        assert len(await w.after(1)) == 1
        assert (await w.run())["status"] == "Cancelled"
        told = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert A not in {one["step_id"] for one in told}
