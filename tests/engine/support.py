"""An engine in this process on a virtual clock, and an endpoint that answers from a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx2

from stephttp._wire.ids import hash_step_id
from stephttp.engine import Backoff, Settings, VirtualClock, create_app
from stephttp.engine.outbound.in_process import InProcess
from stephttp.engine.store.check import invariants

RUN = "01M81KWY2JTNRXZTV817ZB746V"
OTHER = "01M81KWY4BC292NS2P7Q9MNAN7"
A, B, Z = map(hash_step_id, "abz")
SDK = {"x-inngest-sdk": "test:v1"}
KEY = "signkey-test-" + "ab" * 16
EXACT = {"retry": Backoff(jitter=0), "unreachable": Backoff(jitter=0, longest=30)}
"""Settings without chance, so that tests can name the very second."""

Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


def step(id_: str = A, data: Any = 1, **more: Any) -> dict[str, Any]:
    return {"op": "StepRun", "id": id_, "name": "a", "data": data, **more}


def sleep(id_: str = Z, text: str = "5s") -> dict[str, Any]:
    return {"op": "Sleep", "id": id_, "name": text, "userland": {"id": "z"}}


def step_error(id_: str = B, **more: Any) -> dict[str, Any]:
    return {"op": "StepError", "id": id_, "error": {"name": "E", "message": "m", **more}}


def complete(data: Any) -> dict[str, Any]:
    return {"op": "RunComplete", "id": "c", "data": data}


DONE = complete({"status": 201, "headers": {"x-a": "b"}, "body": "hi"})


def answer(ops: Any, status: int = 206, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, headers={**SDK, **named}, json=ops)


def new_run(*steps: dict[str, Any], run_id: str = RUN, **more: Any) -> dict[str, Any]:
    data = {
        "domain": "http://app.test",
        "method": "POST",
        "path": "/orders",
        "query_params": "k=1",
        "content_type": "application/json",
        "body": "eyJhIjogMX0=",
    }
    event = {"name": "inngest/http.request", "data": {**data, **more.pop("data", {})}}
    process = {"process": "theOneProcess"} if more.get("reads_state") else {}
    return {"run_id": run_id, "event": event, "steps": list(steps), **process, **more}


class World:
    """Engine, endpoint and clock."""

    def __init__(self, settings: Settings, clock: VirtualClock) -> None:
        self.clock = clock
        self.script: list[Reply] = []
        self.calls: list[httpx2.Request] = []
        self.app = create_app(
            settings, clock=clock, rng=Random(1), transport=httpx2.MockTransport(self._endpoint)
        )
        self.engine = self.app.state.engine
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app),
            base_url="http://engine.test",
        )

    def _endpoint(self, request: httpx2.Request) -> httpx2.Response:
        self.calls.append(request)
        assert self.script, "an unexpected call of the endpoint"
        reply = self.script.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx2.Response) else reply(request)

    def reach(self, transport: httpx2.AsyncBaseTransport) -> None:
        """From now on the endpoint is behind this, not scripted."""
        self.engine.caller._sender = InProcess(transport)

    async def post(self, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Make a run by a first checkpoint; return the answer's data."""
        response = await self.http.post("/v1/checkpoint", json=new_run(*steps, **more))
        assert response.status_code == 200, response.text
        data: dict[str, Any] = response.json()["data"]
        return data

    async def report(self, *steps: dict[str, Any]) -> httpx2.Response:
        return await self.http.post(f"/v1/checkpoint/{RUN}/steps", json={"steps": list(steps)})

    async def after(self, seconds: float) -> list[httpx2.Request]:
        """Turn the clock; return the calls that this led to."""
        seen = len(self.calls)
        self.clock.advance(seconds)
        await self.engine.idle()
        return self.calls[seen:]

    async def run(self, run_id: str = RUN) -> dict[str, Any]:
        data: dict[str, Any] = (await self.http.get(f"/v1/runs/{run_id}")).json()["data"]
        return data

    async def memos(self, **headers: str) -> Any:
        response = await self.http.get(f"/v0/runs/{RUN}/actions", headers=headers)
        return response.json()

    async def output(self, token: str, method: str = "GET", run_id: str = RUN) -> httpx2.Response:
        return await self.http.request(method, f"/v1/http/runs/{run_id}/output?token={token}")


@asynccontextmanager
async def world(
    clock: VirtualClock | None = None,
    path: Path | None = None,
    script: Sequence[Reply] = (),
    **settings: Any,
) -> AsyncGenerator[World]:
    """A running `World`, in memory unless a path is given."""
    chosen = Settings(db_path=str(path) if path else ":memory:", **{**EXACT, **settings})
    made = World(chosen, clock or VirtualClock())
    # Past due work is called as soon as the engine runs, so the script must be there first.
    made.script = list(script)
    await made.engine.start()
    try:
        yield made
        # Whatever a test did, the rules of the schema hold after it.
        assert await made.engine.store.read(invariants) == []
    finally:
        await made.http.aclose()
        await made.engine.stop()


class Server:
    """Somebody on a loopback port who says ok, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until something that they do has happened."""
    while not condition():  # noqa: ASYNC110 - there is no event for what tests look at
        await asyncio.sleep(0)


def wire() -> list[dict[str, Any]]:
    """Recorded requests of real SDKs, with the real server's answers."""
    path = Path(__file__).parent / "data" / "wire.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]
