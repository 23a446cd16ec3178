"""The application under uvicorn: programs whose steps are awaited."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

import stephttp
from stephttp import CheckpointRun, NewAPIRunData, step
from tests.faults.boundaries.programs import (
    DAYS,
    LIMITED,
    MODES,
    PROVIDER,
    Bodies,
    client,
    serve,
)

app, limited = FastAPI(), FastAPI()
limited.add_middleware(stephttp.ASGIMiddleware, provider=LIMITED)


class BothProviders:
    """Middleware by the endpoint: that of `limited`, or that of all others."""

    def __init__(self, app: Any) -> None:
        self.others = stephttp.ASGIMiddleware(app, provider=PROVIDER)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (limited if scope.get("path") == "/limited" else self.others)(scope, receive, send)


app.add_middleware(BothProviders)


@app.get("/up")
async def up() -> str:
    return "up"


@app.post("/work", status_code=201)
@PROVIDER.endpoint(
    id="work", retries=20, delay=timedelta(seconds=0.1), max_delay=timedelta(seconds=0.5)
)
async def keyed(program: dict[str, Any]) -> dict[str, Any]:
    return await work(program)


@limited.post("/limited", status_code=201)
@LIMITED.endpoint(
    id="limited", retries=20, delay=timedelta(seconds=0.1), max_delay=timedelta(seconds=0.5),
    concurrency=stephttp.Concurrency(4), throttle=stephttp.Throttle(1000, timedelta(seconds=1)),
    refuse_over_limit=True,
)  # fmt: skip
async def within_limits(program: dict[str, Any]) -> dict[str, Any]:
    return await work(program)


async def work(program: dict[str, Any]) -> dict[str, Any]:
    stephttp.configure(checkpointing=MODES[program.get("mode", "blended")])
    bodies = Bodies(program)
    values: dict[str, Any] = {}
    for number, part in enumerate(program["parts"]):
        name, kind = f"{number}", part["kind"]
        if kind == "run":
            # Leases are renewed, and others answered, while it takes its time.
            nonce = await step.run(name, asyncio.to_thread, bodies.run, name, part)
            values[name] = nonce.rstrip(".")
        elif kind == "push":
            stephttp.stream.push(name)
        elif kind == "sleep":
            await step.sleep(name, timedelta(milliseconds=part["ms"]))
        elif kind == "event":
            event = await step.wait_for_event(name, event=part["name"], timeout=DAYS)
            values[name] = event is not None
        elif kind == "crowd":
            waits = [
                step.wait_for_event(f"{name}.{one}", event=part["name"], timeout=DAYS)
                for one in range(part["size"])
            ]
            values[name] = sum(event is not None for event in await asyncio.gather(*waits))
        elif kind == "signal":
            await step.wait_for_signal(name, signal=part["name"], timeout=DAYS)
        elif kind == "fetch":
            values[name] = (await step.fetch(name, part["url"])).status_code
        elif kind == "send":
            await step.send_event(name, stephttp.Event(name=part["name"]))
    return bodies.end(values)


@app.api_route("/functions/{name}", methods=["PUT", "POST"])
async def functions(name: str, request: Request) -> Response:
    call = await request.json() if request.method == "POST" else None
    status, content, headers = serve(name, call)
    return JSONResponse(content, status, headers)


@app.post("/by-hand/{run_id}")
async def by_hand(run_id: str) -> dict[str, Any]:
    api = client(stephttp.APIClient)
    run = CheckpointRun(run_id)
    try:
        await api.checkpoint_new_run(run_id, NewAPIRunData("http://127.0.0.1", "POST", "/hand"))
    except stephttp.APIStatusError as error:
        if error.status != 409:
            raise
        # It is there: this is a repetition, and the answer to the first was lost.
    try:
        await api.get_steps(run_id)
        await api.checkpoint_response(run, stephttp.APIResult(200, {}, b"by hand"))
    except stephttp.APIStatusError as error:
        if error.status != 410:
            raise
        # It has ended, too.
    return {"run": run_id}


@app.post("/outside/{what}/{name}")
async def outside(what: str, name: str) -> dict[str, Any]:
    try:
        if what == "result":
            return {"status": (await PROVIDER.result(name)).status_code}
        await (PROVIDER.cancel(name) if what == "cancel" else PROVIDER.send_signal(name))
    except stephttp.SignalNotAwaitedError:
        pass  # It was received, but the answer was lost.
    return {}
