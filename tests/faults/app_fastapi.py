"""The application under uvicorn: programs whose steps are awaited."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

import stephttp
from stephttp import step
from tests.faults.ledger import Ledger
from tests.faults.programs import MODES, RETRIES, Body, provider

HERE = Path(os.environ["FAULTS_WORLD"])
LEDGER = Ledger(HERE / "ledger")
PROVIDER = provider(HERE)
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=PROVIDER)


@app.get("/up")
async def up() -> str:
    return "up"


@app.post("/work", status_code=201)
@PROVIDER.endpoint(
    id="work", retries=RETRIES, delay=timedelta(seconds=0.1), max_delay=timedelta(seconds=0.5)
)
async def work(program: dict[str, Any], request: Request, response: Response) -> dict[str, Any]:
    stephttp.configure(checkpointing=MODES[program["mode"]])
    body = Body(LEDGER, program)
    values: dict[str, Any] = {}
    for number, part in enumerate(program["parts"]):
        name, kind = f"{number}", part["kind"]
        if kind == "run":
            values[name] = await step.run(name, body.once, name, part["ms"], part["fails"])
        elif kind == "sleep":
            await step.sleep(name, timedelta(milliseconds=part["ms"]))
        elif kind == "event":
            event = await step.wait_for_event(
                name, event=f"go-{body.label}", timeout=timedelta(days=3)
            )
            values[name] = event is not None
        else:
            names = [f"{name}.{branch}" for branch in range(part["branches"])]
            got = await asyncio.gather(
                *(step.run(one, body.once, one, part["ms"], part["fails"]) for one in names)
            )
            values.update(zip(names, got, strict=True))
    values["authorization"] = request.headers.get("authorization")
    answer, cookies = body.end(values)
    for name, value in cookies.items():
        response.set_cookie(name, value)
    return answer
