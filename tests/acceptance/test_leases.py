"""Real processes: one that dies under `Checkpointing.safe`, one that is only slow, and 50 equal
idempotency keys."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.processes import DEADLINE, STEPHTTP, Process, free_port

# Counts each execution of a step in a file. Step three blocks the whole event loop.
APP = """
import pathlib, time
from dataclasses import replace
from datetime import timedelta
from fastapi import FastAPI
import stephttp
from stephttp import step

HERE = pathlib.Path(__file__).parent
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=stephttp.setup(
    "http://localhost",
    checkpointing=replace(stephttp.Checkpointing.safe, lease=timedelta(seconds=2)),
    idempotency_header="Idempotency-Key",
))


def note(name: str) -> str:
    with open(HERE / "log", "a") as log:
        log.write(name + "\\n")
    return name


async def block(seconds: float) -> None:
    note("three")
    if (HERE / "held").exists():
        print("holding", flush=True)
        time.sleep(seconds)


@app.post("/work", status_code=201)
async def work(body: dict[str, float]) -> list[str]:
    one = await step.run("one", note, "one")
    two = await step.run("two", note, "two")
    if (HERE / "held").exists():
        # Lets what is under way in the background go out before the loop is blocked.
        while not (HERE / "go").exists():
            await __import__("asyncio").sleep(0.05)
    await step.run("three", block, body["seconds"])
    return [one, two, await step.run("four", note, "four")]
"""


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "worker.py").write_text(APP)
        self.engine_port, self.app_port = free_port(), free_port()

    def engine(self) -> Process:
        file = str(self.directory / "runs.db")
        process = Process([*STEPHTTP, "dev", "--port", str(self.engine_port), "--db", file])
        process.wait_for("engine ready")
        return process

    def app(self) -> Process:
        process = Process(
            [*STEPHTTP[:-1], "uvicorn", "worker:app", "--port", str(self.app_port)],
            cwd=self.directory,
            env={"INNGEST_DEV": f"http://127.0.0.1:{self.engine_port}"},
        )
        process.wait_for("Uvicorn running")
        return process

    def post(self, seconds: float = 0, **headers: str) -> httpx2.Response:
        url = f"http://127.0.0.1:{self.app_port}/work"
        return httpx2.post(url, json={"seconds": seconds}, headers=headers, timeout=DEADLINE)

    def ask(self, path: str) -> Any:
        return httpx2.get(f"http://127.0.0.1:{self.engine_port}{path}").json()["data"]

    def wait_until_stored(self, *names: str, wanted: str | None = None) -> str:
        """Wait until the engine has these steps of a run, any or `wanted`; returns the run."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            for run in self.ask("/v1/runs"):
                run_id: str = run["run_id"]
                if wanted not in (None, run_id):
                    continue
                steps = {step["name"] for step in self.ask(f"/v1/runs/{run_id}/steps")}
                if steps.issuperset(names):
                    return run_id
            time.sleep(0.05)
        raise AssertionError(f"the engine did not hear of {names}")

    def wait_until_ended(self, run_id: str) -> str:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            status: str = self.ask(f"/v1/runs/{run_id}")["status"]
            if status != "Running":
                return status
            time.sleep(0.05)
        raise AssertionError("the run did not end")

    def executions(self) -> dict[str, int]:
        names = (self.directory / "log").read_text().split()
        return {name: names.count(name) for name in names}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_killed_process_s_run_is_taken_over_and_ends(world: World) -> None:
    (world.directory / "held").touch()
    with world.engine():
        with world.app() as app:
            lost: list[Any] = []

            def call() -> None:
                try:
                    lost.append(world.post(600))
                except httpx2.TransportError as error:
                    lost.append(error)

            caller = threading.Thread(target=call)
            caller.start()
            run_id = world.wait_until_stored("one", "two")
            (world.directory / "go").touch()
            app.wait_for("holding")
            app.signal(signal.SIGKILL)
            app.wait()
            caller.join()
            assert isinstance(lost[0], httpx2.TransportError)
        (world.directory / "held").unlink()
        with world.app():
            assert world.wait_until_ended(run_id) == "Completed"
    assert world.executions() == {"one": 1, "two": 1, "three": 2, "four": 1}


def test_a_process_whose_event_loop_is_blocked_keeps_its_run(world: World) -> None:
    (world.directory / "held").touch()
    (world.directory / "go").touch()
    with world.engine(), world.app() as app:
        # The very first run is opened by a plain checkpoint; the second one's lease comes with it.
        assert world.post(0).status_code == 201
        answer = world.post(8)  # four leases
        assert (answer.status_code, answer.json()) == (201, ["one", "two", "four"])
        run_id = world.wait_until_stored("four", wanted=answer.headers["x-run-id"])
        assert world.wait_until_ended(run_id) == "Completed"
        assert not [line for line in app.out if "x-run-id" in line]
    assert world.executions() == {"one": 2, "two": 2, "three": 2, "four": 2}


def test_fifty_equal_idempotency_keys_are_one_execution(world: World) -> None:
    with world.engine(), world.app():
        with ThreadPoolExecutor(50) as pool:
            calls = [pool.submit(world.post, 0, **{"idempotency-key": "k"}) for _ in range(50)]
            answers = [call.result() for call in calls]
        ignored = {"date", "server"}
        seen = {
            (
                answer.status_code,
                tuple(sorted(p for p in answer.headers.multi_items() if p[0] not in ignored)),
                answer.content,
            )
            for answer in answers
        }
        assert len(seen) == 1
        assert answers[0].json() == ["one", "two", "four"]
        assert world.executions() == {"one": 1, "two": 1, "three": 1, "four": 1}
        assert world.post(1, **{"idempotency-key": "k"}).status_code == 422
