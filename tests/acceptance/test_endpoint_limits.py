"""Real processes: an engine and an application with two workers' worth of room for 20 runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.acceptance.processes import DEADLINE, STEPHTTP, Process, eventually, free_port

# Notes when an order comes to work, and when it leaves. The first two stay until the test says so.
APP = """
import asyncio, pathlib
from datetime import timedelta
from fastapi import FastAPI
import stephttp
from stephttp import Concurrency, step

HERE = pathlib.Path(__file__).parent
provider = stephttp.setup("http://localhost")
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


def note(sign: str) -> None:
    with open(HERE / "log", "a") as log:
        log.write(sign)


@app.get("/pack/{number}")
@provider.endpoint(id="pack", concurrency=Concurrency(2))
async def pack(number: int) -> int:
    await step.sleep("nap", timedelta(milliseconds=1))
    note("+")
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    note("-")
    return number
"""


def test_two_of_twenty_waiting_runs_are_at_work_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(APP)
    engine_port, app_port = free_port(), free_port()
    file = str(tmp_path / "runs.db")
    log = tmp_path / "log"
    server = [*STEPHTTP[:-1], "uvicorn", "worker:app", "--port", str(app_port)]
    environ = {"INNGEST_DEV": f"http://127.0.0.1:{engine_port}"}
    with Process([*STEPHTTP, "dev", "--port", str(engine_port), "--db", file]) as engine:
        engine.wait_for("engine ready")
        with Process(server, cwd=tmp_path, env=environ) as app:
            app.wait_for("Uvicorn running")

            def get(number: int) -> str:
                url = f"http://127.0.0.1:{app_port}/pack/{number}"
                return httpx2.get(url, follow_redirects=True, timeout=DEADLINE).text

            def waiting() -> bool:
                answer = httpx2.get(f"http://127.0.0.1:{engine_port}/metrics").text
                return 'stephttp_timers_at_gates{limit="concurrency"} 18' in answer

            with ThreadPoolExecutor(20) as callers:
                answers = callers.map(get, range(20))
                try:
                    eventually(waiting)
                    # The two that are called may not have come to their work yet.
                    eventually(lambda: log.exists() and len(log.read_text()) >= 2)
                    assert log.read_text() == "++"
                finally:
                    (tmp_path / "go").touch()
                assert list(answers) == [str(number) for number in range(20)]
    at_work, most = 0, 0
    for sign in log.read_text():
        at_work += 1 if sign == "+" else -1
        most = max(most, at_work)
    assert (at_work, most, len(log.read_text())) == (0, 2, 40)
