"""Answers of an application, and of what a step fetches, that are almost right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import httpx2

from stephttp._wire.ids import random_ulid
from stephttp.engine.outbound.in_process import InProcess
from stephttp.engine.store.check import invariants
from tests.engine.support import World, new_run, sleep, step, world
from tests.fuzzing.cases import Case, Target
from tests.fuzzing.engine_requests import OPS
from tests.fuzzing.mutations import body_of, change_header

_SDKS = ["test:v1", "stephttp-py:v0.1.0", "inngest-js:v4.24.0", "go:0.16.0", "inngest-py:v0.5.19"]
_HEADERS = {
    "retry-after": "5", "x-inngest-no-retry": "true", "x-inngest-req-version": "2",
    "content-type": "application/json", "content-encoding": "gzip", "location": "http://a/",
    "set-cookie": "a=b", "x-run-id": "x",
}  # fmt: skip
_STATUSES = [200, 201, 204, 206, 206, 206, 206, 301, 400, 401, 404, 421, 429, 500, 502, 503]


class Hostile:
    """An application that answers as the case says."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.rng = Random(0)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        rng = self.rng
        if rng.random() < 0.03:
            raise httpx2.ReadError("reset", request=request)
        ops = rng.sample(OPS, rng.choice([1, 1, 2, 4]))
        body = body_of(rng, rng.choice([ops, ops[0], OPS]))
        names = rng.sample([*_HEADERS], rng.choice([0, 1, 3]))
        headers = [(name, change_header(rng, _HEADERS[name].encode())) for name in names]
        if rng.random() < 0.95:
            headers.append(("x-inngest-sdk", rng.choice(_SDKS).encode()))
        return httpx2.Response(
            rng.choice(_STATUSES),
            headers=[(name.encode(), value) for name, value in headers],
            content=body,
        )

    async def case(self, rng: Random) -> str:
        self.rng, w = rng, self.w
        run_id = random_ulid(w.clock.now_ms(), rng.randbytes(16))
        ops = [step(), sleep(text="1s")] if rng.random() < 0.5 else rng.sample(OPS, 3)
        data = {"method": rng.choice(["GET", "POST"]), "domain": f"http://app{rng.random()}.test"}
        message = new_run(*ops, run_id=run_id, retries=rng.choice([0, 1, 4]), data=data)
        message["reads_state"] = rng.random() < 0.5
        made = await w.http.post(
            "/v1/checkpoint", json=message, headers={"x-inngest-sdk": rng.choice(_SDKS)}
        )
        assert made.status_code < 500, made.text
        for _ in range(rng.choice([1, 2, 4])):
            w.clock.advance(rng.choice([0.5, 5, 3600]))
            await w.engine.idle()
        paths = [
            f"/v1/stephttp/runs/{run_id}",
            f"/v0/runs/{run_id}/actions",
            f"/runs/{run_id}",
            f"/v1/runs/{run_id}/steps",
            "/v1/runs?limit=5",
            "/metrics",
        ]
        for path in rng.sample(paths, 1):
            looked = await w.http.get(path, headers={"host": "127.0.0.1"})
            assert looked.status_code < 500, (path, looked.text[:500])
        if made.status_code == 200:
            token = made.json()["data"]["token"]
            path = f"/v1/http/runs/{run_id}/output?token={token}"
            result = await w.http.get(path, headers={"prefer": "wait=0"})
            assert "Traceback" not in result.text
            assert "internal error of the engine" not in result.text
        if rng.random() < 0.1:
            assert await w.engine.store.read(invariants) == []
        if made.status_code != 200:
            return "refused"
        run = await w.run(run_id)
        status: str = run["status"]
        if status == "Running":
            await w.http.delete(f"/v1/runs/{run_id}")
        return status


@asynccontextmanager
async def _open() -> AsyncIterator[Case]:
    async with world(output_timeout=0, max_idle_answers=3) as w:
        hostile = Hostile(w)
        w.reach(httpx2.MockTransport(hostile.answer))
        w.engine.executor._gateway._sender = InProcess(httpx2.MockTransport(hostile.answer))
        yield hostile.case


TARGETS = [Target("hostile-application", _open, block=50)]
