"""The server as a whole: the transport of the SDK under test, which calls the application itself.

Time is virtual: what is due next happens when nothing else is left to do, or, where a test chooses
the order, at any time. What is due at the same moment is called at the same time.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import httpx2

from stephttp._wire.ids import hash_step_id
from stephttp.options import resolve
from stephttp.provider import Provider
from tests.realserver.api import API
from tests.realserver.calls import request_of
from tests.realserver.executor import Executor
from tests.realserver.interleaving import Interleaving
from tests.realserver.state import Item, RealRun
from tests.wsgi import Blocking, WSGITransport

APP, SERVER = "http://app.test", "http://inngest.test"
MARKER = hash_step_id("stephttp:parallel")
AT_ONCE = 4
"""Calls that are under way at the same time, unless a test chooses what happens: about so many were
when the first of them ended a run of ten naps, which took 24 calls."""
LEASE = 60.0
"""Seconds after which a call is repeated whose node has died."""


class RealServer(httpx2.AsyncBaseTransport):
    """The server. Set `app` to the wrapped application, or `apps` to those of several processes.

    Args:
        key: signing key; empty is the development server.
        extra: calls the application once more for every re-entry, as late discoveries do.
        force_plan: asks for step plans on every call.
        wsgi: whether the application is one of WSGI.
        choose: returns one of so many numbers: what happens next, and in which process.
    """

    def __init__(
        self,
        *,
        key: str = "",
        extra: bool = False,
        force_plan: bool = False,
        wsgi: bool = False,
        choose: Callable[[int], int] | None = None,
    ) -> None:
        self.executor = Executor()
        self.executor.cloud = bool(key)
        self.runs = self.executor.runs
        self._api = API(self.executor, key)
        self.apps: list[Any] = []
        self.wsgi = wsgi
        self.blocking = Blocking(self)
        self.extra = extra
        self.always_plan = force_plan
        self.reentries: list[httpx2.Request] = []
        self.answers: list[httpx2.Response] = []
        self.api: list[httpx2.Request] = []
        self.down: Callable[[httpx2.Request], bool] = lambda request: False
        self.deaths = 0
        """How often a node may die, where a test chooses what happens."""
        self.strays = 0
        """How often a call of the handler comes late, or again, to a run that has had branches."""
        self._choose = choose
        self._turns = itertools.count()
        self._gates = Interleaving(choose or (lambda count: 0))
        self.blocking.wait = self._gates.turns.wait
        self._node = 0
        """Counts the deaths of nodes: what a dead one has begun comes to nothing."""

    @property
    def app(self) -> Any:
        """The application, if it has one process."""
        return self.apps[0] if self.apps else None

    @app.setter
    def app(self, app: Any) -> None:
        self.apps = [app]

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.executor.now

    @property
    def key(self) -> str:
        """The signing key."""
        return self._api.key

    @key.setter
    def key(self, key: str) -> None:
        self._api.key = key

    @property
    def forwarded(self) -> dict[str, bytes]:
        """What was sent to those who follow the streams of runs."""
        return self._api.forwarded

    @property
    def settings(self) -> API:
        """How the API behaves."""
        return self._api

    @property
    def trace(self) -> list[str]:
        """What happened, where a test chooses it."""
        return self._gates.trace

    def provider(self, **options: Any) -> Provider:
        """The SDK's side: a provider that talks to this server."""
        environ = {"INNGEST_SIGNING_KEY": self.key} if self.key else {"INNGEST_DEV": "1"}
        options.setdefault("base_url", SERVER)
        return Provider(
            resolve(APP, environ=environ, **options),
            transport=self,
            sync_transport=self.blocking,
            now_ns=lambda: int(self.now * 1_000_000_000),
            monotonic_ns=lambda: int(self.now * 1_000_000_000),
            pause=self._pause,
            sync_pause=self._sync_pause,
            rng=random.Random(1),
        )

    def client(self) -> httpx2.AsyncClient:
        """A user of the application, whose requests go to the processes in their turn."""
        self.blocking.loop = asyncio.get_running_loop()

        async def send(request: httpx2.Request) -> httpx2.Response:
            return await self.to_app().handle_async_request(request)

        return httpx2.AsyncClient(transport=httpx2.MockTransport(send), base_url=APP)

    async def begin(self, path: str) -> httpx2.Response:
        """The answer to the request of a user, whose threads have turns."""
        with self._gates.turns.chosen() if self.wsgi else nullcontext():
            answer = asyncio.ensure_future(self.client().get(path))
            while not answer.done():
                await self._gates.settle()
            return answer.result()

    def to_app(self) -> httpx2.AsyncBaseTransport:
        """The way to the application, or to the process that takes the next call."""
        app = self.app
        if len(self.apps) > 1:
            app = self.apps[self._next_app()]
        if self.wsgi:
            turns = self._gates.turns
            return WSGITransport(app, turns.start if turns.active else None)
        return httpx2.ASGITransport(app=app, raise_app_exceptions=False)

    def _next_app(self) -> int:
        """The process that takes the next call: one after the other, unless a test chooses."""
        if self._choose is None:
            return next(self._turns) % len(self.apps)
        return self._choose(len(self.apps))

    async def finish(self, response: httpx2.Response, calls: int = 200) -> httpx2.Response:
        """The final answer behind a redirect.

        Raises:
            AssertionError: the run hangs, or needs more calls than that.
        """
        assert response.status_code == 303, (response.status_code, response.text)
        await self.work(calls)
        url = httpx2.URL(response.headers["location"])
        return await self.handle_async_request(httpx2.Request("GET", url))

    async def work(self, calls: int = 200) -> None:
        """Do what is due, and let time pass, until nothing is left to do."""
        if self._choose is not None:
            with self._gates.turns.chosen() if self.wsgi else nullcontext():
                await self._work_as_chosen(calls)
            return
        while self.executor.queue:
            items = self.due_next()
            calls -= len(items)
            assert calls > 0, "the run goes in circles"
            at_once = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._call_in_turn(item, at_once) for item in items))

    async def work_until(self, when: float) -> None:
        """Make the calls that are due by then, one after the other."""
        while self.executor.queue and min(self.executor.queue)[0] <= when:
            for item in self.due_next():
                await self.call(item)

    async def _call_in_turn(self, item: Item, at_once: asyncio.Semaphore) -> None:
        async with at_once:
            await self.call(item)

    def due_next(self) -> list[Item]:
        """Let time pass. Returns what is due then."""
        queue = self.executor.queue
        self.executor.now = max(self.now, min(queue)[0])
        items = [item for due, _, item in sorted(queue) if due <= self.now]
        queue[:] = sorted(one for one in queue if one[0] > self.now)
        return items

    async def _work_as_chosen(self, calls: int) -> None:
        gates, queue = self._gates, self.executor.queue
        gates.active = True
        at_work: set[asyncio.Task[None]] = set()
        try:
            while queue or at_work:
                await gates.settle()
                at_work -= {task for task in at_work if task.done() and not task.result()}
                may_die = self.deaths > 0 and bool(at_work)
                branched = [run for run in self.runs.values() if MARKER in run.memos]
                may_stray = self.strays > 0 and bool(branched)
                options = gates.waiting + bool(queue) + may_stray + may_die
                if not options:
                    if at_work:
                        await gates.come(at_work)
                    continue
                number = gates.choose(options)
                if number < gates.waiting:
                    gates.release(number)
                    continue
                if may_die and number == options - 1:
                    self.deaths -= 1
                    self.die()
                    continue
                if may_stray and number == options - 1 - may_die:
                    self.strays -= 1
                    stray = Item(branched[0].run_id, job=f"stray{self.strays}")
                    at_work.add(asyncio.ensure_future(self.call(stray)))
                    continue
                for item in self.due_next():
                    calls -= 1
                    assert calls > 0, "the run goes in circles"
                    at_work.add(asyncio.ensure_future(self.call(item)))
        finally:
            gates.active = False

    def die(self) -> None:
        """Let the node die that has made the calls which are open, and reads what was sent to it.

        The calls are made again by another node, and it is there at once.
        """
        self._node += 1

    # --- the API ------------------------------------------------------------------------------

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.api.append(request)
        if self.down(request):
            raise httpx2.ConnectError("connection refused", request=request)
        node, shown = self._node, f"{request.method} {request.url.path.rpartition('/')[2]}"
        await self._gates.gate(shown)
        if node != self._node:
            raise httpx2.ConnectError("the node has died", request=request)
        answer = await self._api.answer(request)
        await self._gates.gate(f"{shown} -> {answer.status_code}")
        if node != self._node:
            raise httpx2.ReadError("the node has died", request=request)
        answer.is_stream_consumed = answer.is_closed = False  # it can be read in pieces
        if not self.key and "x-inngest-server-kind" in answer.headers:
            answer.headers["x-inngest-server-kind"] = "dev"
        return answer

    # --- re-entries ---------------------------------------------------------------------------

    async def call(self, item: Item) -> None:
        """Call the application for an item, and take its answer."""
        run = self.executor.due(item)
        if run is None:
            return
        node = self._node
        run.reentered = True
        answer = await self.reenter(run, item)
        await self._gates.gate("answer")
        if node != self._node:
            self.executor.push(LEASE, item)
        elif answer is not None:
            self.executor.answered(run, item, answer)
        else:
            self.executor.again(run, item)
        if self.extra and not item.generation > 1 and not run.over:
            late_item = Item(run.run_id, job="late")
            late = await self.reenter(run, late_item)
            if late is not None:
                self.executor.answered(run, late_item, late)

    async def reenter(self, run: RealRun, item: Item) -> httpx2.Response | None:
        """Send a re-entry. Returns its answer; `None`: there is none."""
        await self._gates.gate(f"call {item.step_id[:6]}")
        request = request_of(run, item, key=self.key, now=self.now, plan=self.always_plan)
        self.reentries.append(request)
        if not str(request.url).startswith(APP) or self.down(request):
            return None
        answer = await self.to_app().handle_async_request(request)
        await answer.aread()
        if request.method == "HEAD":
            answer = httpx2.Response(answer.status_code, headers=answer.headers)
        self.answers.append(answer)
        return answer

    async def _pause(self, seconds: float) -> None:
        self.executor.now += seconds
        await asyncio.sleep(0)

    def _sync_pause(self, seconds: float) -> None:
        self.executor.now += seconds
