"""FastAPI on trio's event loop: endpoints without steps, and some that use them."""

from collections.abc import AsyncIterator
from datetime import timedelta

import trio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

import stephttp
from stephttp import step
from stephttp.sync import step as blocking

provider = stephttp.setup(
    "http://127.0.0.1", result_path="/result", idempotency_header="Idempotency-Key"
)
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


@app.get("/plain")
@provider.endpoint(id="plain", retries=3)
async def plain() -> str:
    stephttp.update_omit_response_body(True)
    await trio.lowlevel.checkpoint()
    return "plain"


@app.post("/body")
async def body(request: Request) -> str:
    stephttp.configure(id="body")
    return (await request.body()).decode()


@app.get("/def")
def of_a_thread() -> str:
    return "def"


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        yield "a"
        await trio.lowlevel.checkpoint()
        yield "b"

    return StreamingResponse(pieces())


@app.get("/step")
async def with_step() -> str:
    return await step.run("a", lambda: "never")


@app.get("/sleep")
@provider.endpoint()
async def with_sleep() -> None:
    await step.sleep("nap", timedelta(seconds=1))


@app.get("/parallel")
async def with_branches() -> None:
    await step.parallel([lambda: step.run("a", lambda: "never")])


@app.get("/def/step")
def with_blocking_step() -> str:
    return blocking.run("a", lambda: "never")


@app.exception_handler(stephttp.UsageError)
async def explain(_: Request, error: Exception) -> StreamingResponse:
    return StreamingResponse(iter([str(error)]), 501)
