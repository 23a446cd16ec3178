"""Endpoints that wait, for the benchmarks of the engine's executor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import FastAPI

import stephttp
from stephttp import step

app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=stephttp.setup("https://api.example.com"))


async def work(number: int) -> int:
    return number + 1


@app.post("/second")
async def second() -> int:
    """A sleep of a second, and five steps after it."""
    await step.sleep("nap", timedelta(seconds=1))
    number = 0
    for name in ("a", "b", "c", "d", "e"):
        number = await step.run(name, work, number)
    return number


@app.post("/short")
async def short() -> int:
    """A step, a sleep of 10 ms, two more steps."""
    number = await step.run("first", work, 0)
    await step.sleep("nap", timedelta(milliseconds=10))
    number = await step.run("second", work, number)
    return await step.run("third", work, number)


@app.post("/due/{until}")
async def due(until: float) -> int:
    """A sleep until a point in time (seconds since the epoch), and a step."""
    await step.sleep_until("nap", datetime.fromtimestamp(until, UTC))
    return await step.run("after", work, 0)
