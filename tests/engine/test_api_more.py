"""Checkpoints of open calls, results sent by endpoints, and live streams, over HTTP."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import httpx2
import pytest

from .support import (
    DONE,
    OTHER,
    RUN,
    A,
    B,
    World,
    Z,
    answer,
    complete,
    sleep,
    step,
    step_error,
    world,
)


def qi(job: str) -> str:
    return b64encode(f"{job}::default".encode()).decode()


async def report(w: World, *steps: dict[str, Any], run_id: str = RUN, **more: Any) -> Any:
    return await w.http.post(f"/v1/checkpoint/{run_id}/async", json={"steps": steps, **more})


async def test_steps_of_an_open_call() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        assert (await report(w, step(A), run_id=RUN)).status_code == 200
        w.script = [httpx2.ConnectError("refused"), answer({"message": "boom"}, 500)]
        await w.post(sleep(text="1h"), run_id=OTHER, retries=2)
        (call,) = await w.after(1)
        job = call.headers["x-inngest-job-id"]
        response = await report(w, step(B), qi_id=qi(job), generation_id=1)
        assert (response.status_code, response.content) == (200, b"")
        assert await w.memos() == {A: {"data": 1}, B: {"data": 1}, Z: None}


async def test_steps_of_a_call_that_was_given_up_are_refused() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), retries=2)
        w.script = [answer({"message": "boom"}, 500)]
        (call,) = await w.after(1)
        job = qi(call.headers["x-inngest-job-id"])
        stale = await report(w, step(A), qi_id=job, generation_id=1)
        assert stale.status_code == 409
        assert stale.json()["error"].startswith("generation_id: ")
        assert (await report(w, step(B), qi_id=job, generation_id=2)).status_code == 200
        assert await w.memos() == {B: {"data": 1}, Z: None}


@pytest.mark.parametrize(
    ("run_id", "steps", "more", "status", "start"),
    [
        (OTHER, [step()], {}, 400, f"run_id: there is no run {OTHER}"),
        ("x", [step()], {}, 400, "run_id: 'x' is not a ULID"),
        (RUN, [sleep()], {}, 400, "steps[0].op: cannot checkpoint async steps (Sleep)"),
        (RUN, [step(), step_error()], {}, 400, "steps[1].op: cannot checkpoint async steps"),
        (RUN, [step()], {"qi_id": "!", "generation_id": 1}, 400, "qi_id: '!' is not base64"),
        (RUN, [step()], {"fn_id": "x"}, 400, "fn_id: 'x' is not a UUID"),
        (RUN, [step(data="x" * 100)], {}, 413, "steps[0].data: more than 50 bytes"),
    ],
)
async def test_bad_steps_of_an_open_call(
    run_id: str, steps: Any, more: Any, status: int, start: str
) -> None:
    async with world(max_step_output=50) as w:
        await w.post(sleep(text="1h"))
        response = await report(w, *steps, run_id=run_id, **more)
        assert response.status_code == status
        assert response.json()["error"].startswith(start)
        assert await w.memos() == {}


@pytest.mark.parametrize("prefix", ["/v1/http/runs", "/v1/checkpoint"])
async def test_a_result_sent_by_the_endpoint(prefix: str) -> None:
    async with world() as w:
        token = (await w.post(step()))["token"]
        body = b64encode(b"\xff\x00 bytes").decode()
        result = {"status_code": 418, "headers": {"X-A": "b"}, "body": body, "duration": 5}
        first = await w.http.post(f"{prefix}/{RUN}/response", json=result)
        assert (first.status_code, first.content) == (200, b"")
        output = await w.output(token)
        assert (output.status_code, output.headers["x-a"]) == (418, "b")
        assert output.content == b"\xff\x00 bytes"
        assert (await w.run())["status"] == "Completed"
        # The same again is no clash, another one is.
        assert (await w.http.post(f"{prefix}/{RUN}/response", json=result)).status_code == 200
        other = await w.http.post(f"{prefix}/{RUN}/response", json={"status_code": 200})
        assert other.status_code == 409


async def test_a_result_that_tells_of_an_error() -> None:
    async with world() as w:
        await w.post(step())
        result = {"status_code": 500, "headers": {}, "duration": 1, "error": "panic"}
        assert (await w.http.post(f"/v1/http/runs/{RUN}/response", json=result)).is_success
        run = await w.run()
        assert (run["status"], run["error"]) == ("Failed", {"name": "Error", "message": "panic"})


@pytest.mark.parametrize(
    ("run_id", "body", "status", "start"),
    [
        (OTHER, {"status_code": 200}, 404, f"run_id: there is no run {OTHER}"),
        (RUN, {}, 400, "body: Object missing required field `status_code`"),
        (RUN, {"status_code": 99}, 400, "status_code: Expected `int` >= 200"),
        (RUN, {"status_code": 200, "body": "!"}, 400, "body: not base64"),
        (RUN, {"status_code": 200, "headers": {"a": 1}}, 400, "headers"),
    ],
)
async def test_bad_results(run_id: str, body: Any, status: int, start: str) -> None:
    async with world() as w:
        await w.post(step())
        response = await w.http.post(f"/v1/http/runs/{run_id}/response", json=body)
        assert response.status_code == status
        assert response.json()["error"].startswith(start)
        assert (await w.run())["status"] == "Running"


async def test_ops_after_the_result_change_nothing() -> None:
    async with world() as w:
        await w.post(complete(DONE["data"]))
        assert (await report(w, step(B))).status_code == 409
