"""Carries out schedules in a world: callers with patience, blows, and the verdict."""

from __future__ import annotations

import asyncio
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from tests.faults.judge import CREATED, Verdict, judge
from tests.faults.proxy import PAGE_MARK
from tests.faults.schedules import Request, Schedule
from tests.faults.world import EVENT_KEY, SIGNING_KEY, World

_SEE_OTHER = 303
PATIENCE = 100.0
"""Seconds after the last fault within which everything that was accepted has ended. The engine
waits up to 30 s between calls of an application that could not be reached."""


async def carry_out(world: World, plan: Schedule, keep_alive: bool = True) -> Verdict:
    """Carry out a schedule, wait until all that it started has ended, and judge it.

    Args:
        keep_alive: whether callers keep connections, and so meet those that are just being closed.
    """
    await world.heal()
    await world.use(plan.app)
    since, begun = world.ledger.size(), time.monotonic()
    world.begin(plan)
    caller = Caller(world)
    async with new_client(30, keep_alive) as caller.client:
        asking = [
            asyncio.create_task(caller.ask(request, begun + request.at))
            for request in plan.requests
        ]
        sending = [
            asyncio.create_task(caller.send_event(one, begun + one.event_at))
            for one in plan.requests
            if one.event_at is not None
        ]
        for blow in sorted(plan.blows, key=lambda one: one.at):
            await _until(begun + blow.at)
            await world.suffer(blow.what, blow.seconds)
        await _until(begun + max((one.at for one in plan.requests), default=0))
        await world.heal()
        caller.deadline = time.monotonic() + PATIENCE
        await asyncio.gather(*asking, *sending)
        left = await caller.open_runs()
    keyed = [request.label for request in plan.requests if request.key]
    unknown = [request.label for request in plan.requests if not request.authorization]
    verdict = judge(world.ledger.entries(since), keyed, set(keyed).intersection(unknown))
    verdict.lost += [f"run {run} of the engine has not ended" for run in left]
    return verdict


def new_client(timeout: float, keep_alive: bool = True) -> httpx2.AsyncClient:
    """Return a client for many callers, which keeps no cookies of theirs."""
    policy = DefaultCookiePolicy(allowed_domains=[])
    limits = httpx2.Limits(max_keepalive_connections=None if keep_alive else 0)
    return httpx2.AsyncClient(timeout=timeout, cookies=CookieJar(policy), limits=limits)


class Caller:
    """Callers as they should be: they repeat what is safe to repeat, and nothing else."""

    client: httpx2.AsyncClient

    def __init__(self, world: World) -> None:
        self._world = world
        self.deadline = time.monotonic() + 600
        """Set once the last fault is over."""

    async def ask(self, request: Request, at: float) -> None:
        """Send a request, follow it to its answer, and note all that.

        Without a key it is sent once, directly. With one it is sent through the proxy until it is
        answered, and then once more: that answer must be the same.
        """
        await _until(at)
        self._world.ledger.write("request", label=request.label)
        if request.key is None:
            await self._once(request)
            return
        if await self._until_answered(request):
            await self._until_answered(request)
        else:
            self._note("accepted", request, run="(never answered, although it has a key)")

    async def _once(self, request: Request) -> None:
        app = self._world.app
        assert app is not None
        answer = await self._post(request, app.port, {})
        if answer is None:
            return  # Not accepted, as far as this caller can know.
        if answer.status_code not in (CREATED, _SEE_OTHER):
            self._note("refused", request, status=answer.status_code, text=answer.text[:500])
            return
        self._note("accepted", request, run=answer.headers.get("x-run-id", "?"))
        await self._follow(request, answer)

    async def _until_answered(self, request: Request) -> bool:
        assert request.key is not None
        while time.monotonic() < self.deadline:
            headers = {"idempotency-key": request.key}
            answer = await self._post(request, self._world.callers.port, headers)
            # 409: the first is still being answered. 503: not now.
            if answer is not None and answer.status_code not in (409, 503):
                self._note("accepted", request, run=answer.headers.get("x-run-id", "?"))
                await self._follow(request, answer)
                return True
            await asyncio.sleep(0.2)
        return False

    async def _post(
        self, request: Request, port: int, headers: dict[str, str]
    ) -> httpx2.Response | None:
        if request.authorization:
            headers["authorization"] = request.authorization
        url = f"http://127.0.0.1:{port}/work"
        try:
            answer = await self.client.post(url, json=request.program, headers=headers)
        except httpx2.TransportError:
            return None
        return None if _is_spoilt(answer) else answer

    async def _follow(self, request: Request, answer: httpx2.Response) -> None:
        """Wait at the result's address for as long as it takes, and note the answer."""
        location = answer.headers["location"] if answer.status_code == _SEE_OTHER else None
        if location is None:
            self._got(request, answer)
            return
        for _ in range(2):  # it stays the same
            last = ""
            while True:
                if time.monotonic() > self.deadline:
                    self._note("gave-up", request, last=last, location=location)
                    return
                try:
                    answer = await self.client.get(location)
                except httpx2.TransportError as error:
                    last = repr(error)
                else:
                    last = f"{answer.status_code} {answer.text[:500]}"
                    if not _is_spoilt(answer) and answer.status_code not in (202, 303, 503):
                        break
                await asyncio.sleep(0.2)
            self._got(request, answer)

    def _got(self, request: Request, answer: httpx2.Response) -> None:
        cookies = [one.partition(";")[0] for one in answer.headers.get_list("set-cookie")]
        values = _values(answer)
        self._note("got", request, status=answer.status_code, values=values, cookies=cookies)

    async def send_event(self, request: Request, at: float) -> None:
        """Send the event that a request waits for, until that is acknowledged."""
        await _until(at)
        url = f"http://127.0.0.1:{self._world.api.port}/e/{EVENT_KEY}"
        event = {"name": f"go-{request.label}", "id": request.label, "data": {}}
        while time.monotonic() < self.deadline:
            try:
                answer = await self.client.post(url, json=event)
            except httpx2.TransportError:
                pass
            else:
                if answer.status_code == 200 and not _is_spoilt(answer):
                    return
            await asyncio.sleep(0.2)

    async def open_runs(self) -> list[str]:
        """Wait until the engine has no open run; return those that stay open for too long."""
        url = f"http://127.0.0.1:{self._world.engine.port}/v1/runs?status=running&status=waiting"
        headers = {"authorization": f"Bearer {SIGNING_KEY}"}
        while True:
            try:
                answer = await self.client.get(url, headers=headers)
            except httpx2.TransportError:
                if time.monotonic() > self.deadline:
                    raise
                await self._world.alive()
                continue
            runs: list[dict[str, Any]] = answer.json()["data"]
            if not runs or time.monotonic() > self.deadline:
                return [f"{run['run_id']} ({run['status']})" for run in runs]
            await asyncio.sleep(0.2)

    def _note(self, kind: str, request: Request, **fields: Any) -> None:
        self._world.ledger.write(kind, label=request.label, **fields)


def _is_spoilt(answer: httpx2.Response) -> bool:
    """Say whether an answer shows by itself that it is not one: a gateway's, or not UTF-8."""
    return PAGE_MARK in answer.content or b"\xff" in answer.content


def _values(answer: httpx2.Response) -> Any:
    try:
        return answer.json()["values"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))
