"""Streams in tests: what has come, what comes at last, and what comes while time passes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import stephttp
from stephttp import step, stream
from stephttp.testing import AsyncDurableClient, DurableClient, Stuck

EVENTS = {"accept": "text/event-stream"}


def chat() -> Any:
    provider = stephttp.setup("https://chat.example.com")
    app = FastAPI()

    @app.post("/chat")
    async def answer() -> str:
        said = await step.run("ask", say, "asked")
        approval = await step.wait_for_signal(
            "approval", signal="approval", timeout=timedelta(days=30)
        )
        said += await step.run("say", say, "late" if approval is None else "early")
        await step.sleep("nap", timedelta(days=30))
        return said

    @app.get("/numbers")
    async def numbers(kind: str) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: {number}\n\n"

        return StreamingResponse(lines(), media_type=kind)

    return provider.asgi(app)


async def say(word: str) -> str:
    async def words() -> AsyncIterator[str]:
        for number in range(2):
            yield f"{word} {number}. "

    return await stream.pipe(words())


def pushed(lines: Iterable[str]) -> list[Any]:
    data = [json.loads(line[6:]) for line in lines if line.startswith('data: {"data"')]
    return [one["data"] for one in data]


FIRST = ["asked 0. ", "asked 1. "]


def test_a_call_has_what_came_and_what_comes_at_last() -> None:
    with DurableClient(chat()) as client:
        call = client.post("/chat", headers=EVENTS)
        assert pushed(call.accepted.text.splitlines()) == FIRST
        assert "inngest.redirect_info" in call.accepted.text
        assert not call.run.ended
        assert pushed(call.text.splitlines()) == [*FIRST, "late 0. ", "late 1. "]
        assert "inngest.response" in call.text
        assert "inngest.response" not in call.accepted.text
        assert call.run.completed
        unread = client.post("/chat", headers=EVENTS, follow_redirects=False)
        assert pushed(unread.text.splitlines()) == FIRST


def test_a_stream_is_followed_while_time_passes() -> None:
    with DurableClient(chat()) as client:
        began = client.now
        seen = []
        with client.stream("POST", "/chat", headers=EVENTS) as response:
            assert response.status_code == 200
            assert response.headers["x-run-id"] == client.runs[0].id
            for line in response.iter_lines():
                seen += pushed([line])
                if seen == FIRST and line == "event: inngest.redirect_info":
                    assert client.now == began
                    client.advance(timedelta(days=1))
                    client.send_signal("approval")
        assert seen == [*FIRST, "early 0. ", "early 1. "]
        assert client.now == began + timedelta(days=31)
        assert client.runs[0].completed


def test_the_result_of_a_call_is_followed() -> None:
    with DurableClient(chat()) as client:
        address = client.post("/chat").accepted.headers["location"]
        names = []
        with client.stream("GET", address, headers=EVENTS) as response:
            for line in response.iter_lines():
                names += [line[7:]] if line.startswith("event: ") else []
        assert names[-1] == "response"
        assert names.count("stream") == 4
        assert pushed(client.get(address, headers=EVENTS).text.splitlines())[:2] == FIRST


def test_one_may_hang_up() -> None:
    with DurableClient(chat()) as client:
        with client.stream("POST", "/chat", headers=EVENTS) as response:
            assert next(response.iter_lines()) == "event: inngest.metadata"
        assert not client.runs[0].ended
        client.cancel(client.runs[0])
        with client.stream("POST", "/chat") as response:  # it is redirected to its result
            assert json.loads(response.read()) == "asked 0. asked 1. late 0. late 1. "


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
def test_streams_of_the_application_are_read(kind: str) -> None:
    with DurableClient(chat()) as client:
        call = client.get("/numbers", params={"kind": kind})
        assert call.accepted.text == call.text == "".join(f"data: {one}\n\n" for one in range(3))
        with client.stream("GET", "/numbers", params={"kind": kind}) as response:
            lines = [line for line in response.iter_lines() if line]
        assert lines == ["data: 0", "data: 1", "data: 2"]


async def test_an_async_test_follows_a_stream() -> None:
    async with AsyncDurableClient(chat()) as client:
        call = client.post("/chat", headers=EVENTS)
        assert pushed((await call.accepted()).text.splitlines()) == FIRST
        assert pushed((await call).text.splitlines()) == [*FIRST, "late 0. ", "late 1. "]
        async with client.stream("POST", "/chat", headers=EVENTS) as response:
            lines = [line async for line in response.aiter_lines()]
        assert pushed(lines) == [*FIRST, "late 0. ", "late 1. "]


def test_a_stream_that_never_ends_is_named() -> None:
    provider = stephttp.setup("https://chat.example.com")
    app = FastAPI()

    @app.post("/chat")
    async def ask() -> None:
        await step.wait_for_signal("approval", signal="approval", timeout=timedelta(days=1))

    with DurableClient(provider.asgi(app)) as client:
        address = client.post("/chat").accepted.headers["location"]
        client._world.turn = _never  # type: ignore[method-assign]
        with (
            client.stream("GET", address, headers=EVENTS) as response,
            pytest.raises(Stuck, match="nothing is due any more, and the stream does not end"),
        ):
            response.read()


async def _never() -> bool:
    return False
