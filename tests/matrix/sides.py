"""Runs a cell on our engine, or on the double of an Inngest server.

Both sides have virtual time, a signing key, and the application in this process. A side lets a
run come to its longest wait, does what the cell says, and follows it to its end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2

from stephttp.provider import Provider
from tests.durable import APP, KEY, Durable, durable
from tests.matrix.cells import Cell
from tests.matrix.frameworks import Framework
from tests.realserver import RealServer
from tests.realserver.state import Op

LONG = 1800.0
"""Seconds: a wait that takes longer is what a cell acts on."""
ENDS = frozenset({"Completed", "Failed", "Cancelled"})
RESULT_PATH = "/_result"
OPTIONS: dict[str, Any] = {"event_key": "events", "idempotency_header": "Idempotency-Key"}
"""Of the SDK."""
_OWN = frozenset({"content-type", "x-own", "etag", "location", "set-cookie", "allow"})
"""Headers that handlers set. The others are those of servers."""


class Answer(NamedTuple):
    """What a caller gets."""

    status: int
    headers: list[tuple[str, bytes]]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Outcome(NamedTuple):
    """What comes of a cell.

    Args:
        waited: whether the caller was sent on to a result.
        answers: what it gets in the end; two, where it sends two requests.
        runs: how often the bodies of steps ran.
        records: how the runs ended.
    """

    waited: bool
    answers: list[Answer]
    runs: dict[str, int]
    records: list[str]


def reply_of(method: str, path: str, body: str) -> httpx2.Response:
    """The answer to the requests that servers make for steps."""
    if path == "/missing":
        return httpx2.Response(404, text="missing")
    value: dict[str, Any] = {"method": method}
    if body:
        value["body"] = json.loads(body) if body[0] == "{" else body
    return httpx2.Response(200, text=json.dumps(value, sort_keys=True))


def fetched(op: Op) -> dict[str, Any]:
    """The memo that the double makes of a request."""
    opts = op["opts"]
    infers = op["op"] == "AIGateway"
    body = json.dumps(opts["body"], sort_keys=True) if infers else opts.get("body") or ""
    method = "POST" if infers else opts.get("method", "GET")
    answer = reply_of(method, httpx2.URL(opts["url"]).path, body)
    if infers:
        return {"data": answer.json()}
    return {"data": {
        "url": opts["url"], "status_code": answer.status_code, "headers": {}, "body": answer.text,
    }}  # fmt: skip


def gateway(request: httpx2.Request) -> httpx2.Response:
    """The world outside, for our engine."""
    return reply_of(request.method, request.url.path, request.content.decode())


class Side:
    """A server, and an application behind it."""

    provider: Provider
    client: httpx2.AsyncClient

    def __init__(self, framework: Framework) -> None:
        self.framework = framework

    async def settle(self) -> None:
        """Let everything happen that comes within half an hour."""
        raise NotImplementedError

    async def end(self, first: httpx2.Response) -> httpx2.Response:
        """The answer behind a redirect."""
        raise NotImplementedError

    async def record(self, run_id: str) -> str:
        """How a run has ended; empty: there is no record of it."""
        raise NotImplementedError

    async def act(self, what: str, *names: str, run_id: str) -> None:
        """Do what a cell waits for."""
        if what == "event":
            await self.provider.send_event(names[0], {"n": 1})
        elif what == "signal":
            await self.provider.send_signal(names[0], {"n": 1})
        else:
            await self.provider.cancel(run_id)

    async def outcome(self, name: str, cell: Cell, when: str) -> Outcome:
        """Run a cell."""
        counts = self.framework.counts
        if cell.before:
            await self.client.get(cell.before)
            assert await self.provider.wait()
        counts.done.clear()
        counts.failures.clear()
        counts.failures.update(cell.failures)
        sent = dict(cell.request)
        queries = [sent.pop("query", ""), "late=1" if when == "late" else ""]
        url = f"/{name}?" + "&".join(filter(None, queries))
        method = sent.pop("method", "GET")
        begun = [await self.client.request(method, url, **sent) for _ in range(1 + cell.twice)]
        ids = [first.headers["x-run-id"] for first in begun if "x-run-id" in first.headers]
        if cell.act:
            await self.settle()
            await self.act(*cell.act, run_id=ids[0])
        answers = [await self.end(one) if waits(one) else one for one in begun]
        assert await self.provider.wait()
        records = sorted([await self.record(run_id) for run_id in ids])
        found = sorted(seen(one) for one in answers)  # of two, either may be the one that waits
        return Outcome(waits(begun[0]), found, dict(counts.done), records)


def waits(answer: httpx2.Response) -> bool:
    """Whether an answer sends on to a result."""
    return answer.status_code == 303


def seen(answer: httpx2.Response) -> Answer:
    """What is compared of an answer."""
    raw = ((name.decode().lower(), value) for name, value in answer.headers.raw)
    pairs = sorted(pair for pair in raw if pair[0] in _OWN)
    run_id = answer.headers.get("x-run-id", "no run").encode()
    return Answer(int(answer.status_code), pairs, answer.content.replace(run_id, b"RUN"))


class OnEngine(Side):
    """Our engine."""

    def __init__(self, framework: Framework, world: Durable) -> None:
        super().__init__(framework)
        self.world = world
        self.provider = world.provider
        self.client = httpx2.AsyncClient(transport=world.to_app.inner(), base_url=APP)

    async def settle(self) -> None:
        until = self.world.clock.now_ms() + LONG * 1000
        while True:
            await self.world.engine.idle()
            due = await self.world.due_ms()
            if due is None or due > until:
                return
            await self.world.turn()

    async def end(self, first: httpx2.Response) -> httpx2.Response:
        for _ in range(100):
            await self.world.engine.idle()
            if await self.record(first.headers["x-run-id"]) in ENDS:
                return await self.world.result(first.headers["location"])
            await self.world.turn()
        raise AssertionError("the run does not end")

    async def record(self, run_id: str) -> str:
        found = await self.world.engine.store.read(
            lambda db: db.execute("SELECT status FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        )
        return str(found[0]).capitalize() if found else ""


@asynccontextmanager
async def on_engine(framework: Framework) -> AsyncGenerator[OnEngine]:
    """Our engine, with one process of the application."""
    mock = httpx2.MockTransport(gateway)
    wsgi = framework.wsgi
    async with durable(framework.wrapped, key=KEY, wsgi=wsgi, gateway=mock, **OPTIONS) as world:
        side = OnEngine(framework, world)
        async with side.client:
            yield side


class OnDouble(Side):
    """The double.

    Args:
        processes: of the application. Where there are several, results are at its own origin.
    """

    def __init__(self, framework: Framework, processes: int) -> None:
        super().__init__(framework)
        self.server = RealServer(key=KEY, wsgi=framework.wsgi)
        self.server.executor.fetch = fetched
        own = dict(OPTIONS)
        if processes > 1:
            own["result_path"] = RESULT_PATH
        self.providers = [self.server.provider(**own) for _ in range(processes)]
        self.server.apps = [framework.wrapped(one) for one in self.providers]
        self.provider = self.providers[0]
        self.client = self.server.client()

    async def settle(self) -> None:
        await self.server.work_until(self.server.now + LONG)

    async def end(self, first: httpx2.Response) -> httpx2.Response:
        if RESULT_PATH not in first.headers["location"]:
            return await self.server.finish(first)
        await self.server.work()
        return await self.client.get(first.headers["location"])

    async def record(self, run_id: str) -> str:
        for provider in self.providers:
            assert await provider.wait()
        run = self.server.runs.get(run_id)
        return run.status if run else ""

    async def close(self) -> None:
        """End the processes."""
        for provider in self.providers:
            assert await provider.aclose()
        await self.client.aclose()


@asynccontextmanager
async def on_double(framework: Framework, processes: int) -> AsyncGenerator[OnDouble]:
    """The double of an Inngest server."""
    side = OnDouble(framework, processes)
    yield side
    await side.close()
