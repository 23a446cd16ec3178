"""How long does a test of an application take?

Each is a whole test: a client is opened, a request is sent, virtual time passes until its answer is
there, and the client is closed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

import stephttp
from benchmarks.harness import Row
from stephttp import step
from stephttp.testing import DurableClient

TESTS = 30
GOAL = "<= 50"
RETRIES = 3

app = FastAPI()
provider = stephttp.setup("https://api.example.com", signing_key="ab" * 16)
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)
_calls = 0


def flaky() -> str:
    """Fail three times, and then work."""
    global _calls  # noqa: PLW0603
    _calls += 1
    if _calls % (RETRIES + 1):
        raise TimeoutError
    return "done"


@app.get("/sleep")
async def sleep() -> None:
    await step.sleep("month", timedelta(days=30))


@app.get("/retries")
async def retries() -> str:
    stephttp.configure(retries=RETRIES)
    return await step.run("flaky", flaky)


@app.get("/event")
async def event() -> bool:
    found = await step.wait_for_event("packed", event="packed", timeout=timedelta(days=3))
    return found is not None


def _sleep() -> None:
    with DurableClient(app) as client:
        assert client.get("/sleep").status_code == 200


def _retries() -> None:
    with DurableClient(app) as client:
        call = client.get("/retries")
        assert call.json() == "done"
        assert call.run.step("flaky").attempts == RETRIES + 1


def _event() -> None:
    with DurableClient(app) as client:
        call = client.get("/event")
        call.until_waiting()
        client.send_event("packed", {})
        assert call.json() is True


def measure(folder: Path) -> list[Row]:
    return [
        _row("a test of a sleep of 30 days", _sleep),
        _row("a test of three retries with back-off", _retries),
        _row("a test of a wait for an event", _event),
    ]


def _row(question: str, test: Callable[[], None]) -> Row:
    test()
    took = []
    for _ in range(TESTS):
        began = time.perf_counter()
        test()
        took.append((time.perf_counter() - began) * 1000)
    return Row(question, statistics.median(took), "ms", GOAL, (min(took), max(took)))
