"""Do lists and pages stay fast with a million runs?

`python -m benchmarks reading`. A real engine on a file that `million` makes (`BENCH_FILE` names one
that is there already), and requests to its dashboard and REST API through an ASGI transport, one at
a time. For each list, filter and page: median and worst of 15 requests, beside what they must keep
to.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.harness import Row
from benchmarks.million import END_MS, NEEDLE, WEEK_MS, fill
from benchmarks.place import say
from stephttp.engine import Settings, VirtualClock, create_app
from stephttp.engine.model.clock import rfc3339

RUNS = 1_000_000
ROUNDS = 15
FILE = os.environ.get("BENCH_FILE")

PAGE_MS = 50
FILTER_MS = 300
_API = "/v1/runs"
_OURS = "/v1/stephttp"
_PAGE = "dashboard, runs"


@dataclass(frozen=True)
class Question:
    """A request, and the milliseconds that its median must keep to."""

    name: str
    path: str
    limit_ms: int = FILTER_MS


def questions(run_id: str, middle: str) -> list[Question]:
    """Return the requests to measure.

    Args:
        run_id: a run.
        middle: cursor of the middle of the list.
    """
    early, late = rfc3339(END_MS - WEEK_MS // 2), rfc3339(END_MS - WEEK_MS // 3)
    return [
        Question(_PAGE, "/runs", PAGE_MS),
        Question("dashboard, failed runs", "/runs?state=failed"),
        Question("dashboard, text nowhere", "/runs?q=nowhere"),
        Question("dashboard, one run", f"/runs/{run_id}", PAGE_MS),
        Question("dashboard, overview of a week", "/?span=week"),
        Question("runs, first page", f"{_API}?limit=50", PAGE_MS),
        Question("runs, page in the middle", f"{_API}?limit=50&cursor={middle}", PAGE_MS),
        Question("runs, newer than that", f"{_API}?limit=50&cursor={middle}&direction=newer"),
        Question("endpoint, popular", f"{_API}?limit=50&endpoint=POST /orders"),
        Question("endpoint, rare", f"{_API}?limit=50&endpoint=POST /backups"),
        Question("endpoint that is not there", f"{_API}?limit=50&endpoint=POST /nothing"),
        *(
            Question(f"status {status}", f"{_API}?limit=50&status={status}")
            for status in ("running", "waiting", "completed", "failed", "cancelled")
        ),
        Question("two states", f"{_API}?limit=50&status=failed&status=cancelled"),
        Question("rare and cancelled", f"{_API}?limit=50&endpoint=POST /backups&status=cancelled"),
        Question("an old span of time", f"{_API}?limit=50&after={early}&before={late}"),
        Question("failed in it", f"{_API}?limit=50&after={early}&before={late}&status=failed"),
        Question("text that is frequent", f"{_API}?limit=50&text=garden"),
        Question("text that is rare", f"{_API}?limit=50&text={NEEDLE}"),
        Question("text that is nowhere", f"{_API}?limit=50&text=nowhere"),
        Question("the same, of failed runs", f"{_API}?limit=50&text=nowhere&status=failed"),
        Question("run id", f"{_API}?run_id={run_id}"),
        Question("start of a run id", f"{_API}?limit=50&run_id={run_id[:8]}"),
        Question("shorter start", f"{_API}?limit=50&run_id={run_id[:4]}"),
        Question("one run", f"{_OURS}/runs/{run_id}", PAGE_MS),
        Question("overview, hour", f"{_OURS}/overview?span=hour"),
        Question("overview, day", f"{_OURS}/overview?span=day"),
        Question("overview, week", f"{_OURS}/overview?span=week"),
        Question("endpoints", f"{_OURS}/endpoints"),
    ]


async def ask(client: httpx2.AsyncClient, path: str) -> tuple[float, httpx2.Response]:
    """Send a request; return the milliseconds and the answer."""
    begun = time.perf_counter()
    answer = await client.get(path)
    took = (time.perf_counter() - begun) * 1000
    assert answer.status_code == 200, answer.text
    return took, answer


async def answers(path: str) -> dict[str, tuple[Question, list[float]]]:
    """Print a table, and return the milliseconds of each question."""
    app = create_app(Settings(db_path=path), clock=VirtualClock(END_MS))
    await app.state.engine.start()
    transport = httpx2.ASGITransport(app=app)
    measured = {}
    async with httpx2.AsyncClient(transport=transport, base_url="http://engine") as client:
        early, late = rfc3339(END_MS - WEEK_MS // 2), rfc3339(END_MS - WEEK_MS // 3)
        _, first = await ask(client, f"{_API}?limit=1&after={early}&before={late}")
        (run,) = first.json()["data"]
        middle = first.json()["metadata"]["page"]["older"]
        say(f"{'':28} {'found':>5} {'median':>9} {'worst':>9} {'limit':>7}   in ms")
        for question in questions(run["run_id"], middle):
            # The first request only fills the caches of the system.
            await ask(client, question.path)
            asked = [await ask(client, question.path) for _ in range(ROUNDS)]
            times = [took for took, _ in asked]
            measured[question.name] = (question, times)
            found = _found(asked[-1][1])
            median = statistics.median(times)
            mark = "" if median <= question.limit_ms else "   TOO SLOW"
            say(
                f"{question.name:28} {found:5} {median:9.1f} {max(times):9.1f} "
                f"{question.limit_ms:7}{mark}"
            )
    await app.state.engine.stop()
    return measured


def _found(answer: httpx2.Response) -> int:
    """Return how many runs an answer lists; a page of the dashboard counts as one."""
    if "html" in answer.headers["content-type"]:
        return 1
    data = answer.json()["data"]
    return len(data) if isinstance(data, list) else 1


def measure(folder: Path) -> list[Row]:
    """Measure the first page, and the slowest question."""
    path = FILE or str(folder / "runs.db")
    if not Path(path).exists():
        begun = time.perf_counter()
        fill(path, RUNS)
        say(f"{RUNS} runs written in {time.perf_counter() - begun:.0f} s")
    measured = asyncio.run(answers(path))
    slowest, times = max(measured.values(), key=lambda pair: statistics.median(pair[1]))
    (_, page), (_, listed) = measured[_PAGE], measured["runs, first page"]
    return [
        _row(f"the runs page of the dashboard, {RUNS:,} in the file", page, PAGE_MS, ""),
        _row("the same list by REST", listed, PAGE_MS, ""),
        _row("the slowest filter or view of them", times, FILTER_MS, slowest.name),
    ]


def _row(question: str, times: list[float], limit_ms: int, note: str) -> Row:
    spread = (min(times), max(times))
    return Row(question, statistics.median(times), "ms", f"<= {limit_ms}", spread, note=note)
