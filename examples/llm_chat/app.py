"""A chat whose answer appears word by word, and continues when the process that writes it dies.

Start it as README.md says.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import httpx2
from fastapi import FastAPI
from fastapi.responses import FileResponse

import stephttp
from stephttp import Checkpointing, step, stream

MODEL = os.environ.get("CHAT_MODEL_URL", "http://127.0.0.1:8001/v1")
LEASE = timedelta(seconds=float(os.environ.get("CHAT_LEASE", "5")))

app = FastAPI()
provider = stephttp.setup(
    os.environ.get("CHAT_ORIGIN", "http://127.0.0.1:8000"),
    # The engine learns of the run at once, and calls again if this process is not heard of.
    checkpointing=replace(Checkpointing.safe, lease=LEASE),
)
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


@dataclass
class Question:
    """A question."""

    text: str


@app.get("/")
async def page() -> FileResponse:
    """Show the page."""
    return FileResponse(Path(__file__).parent / "page.html")


@app.post("/chat")
@provider.endpoint(id="chat", retries=3)
async def chat(question: Question) -> dict[str, str]:
    """Answer a question, word by word to those who follow, and then as a whole."""
    answer = await step.run("answer", answered, question.text)
    return {"answer": answer}


async def answered(question: str) -> str:
    """Ask the model, and push what it says as it says it."""
    return await stream.pipe(words(question))


async def words(question: str) -> AsyncIterator[str]:
    """Read the stream of an OpenAI-compatible service."""
    request = {"model": "any", "stream": True, "messages": [{"role": "user", "content": question}]}
    async with (
        httpx2.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{MODEL}/chat/completions", json=request) as response,
    ):
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
                if word := delta.get("content"):
                    yield word
