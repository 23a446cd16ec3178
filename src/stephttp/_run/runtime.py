"""The parts that all runs of a provider share: settings, clock, the connections to the
server, outbox, leases, and locks.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, Unpack

from stephttp._client.background import Background
from stephttp._client.blocking_driver import SyncDriver
from stephttp._client.drivers import AsyncDriver
from stephttp._client.event_loop import sleep
from stephttp._client.flow import Keys
from stephttp._client.leases import Leases
from stephttp._client.outbox import Outbox
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.run import Run
from stephttp._run import all_runtimes
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.finished_run import FinishedRuns
from stephttp._run.holds import Holds
from stephttp._run.reentry_guard import Deliveries, KeyedLock
from stephttp._run.sealing import Sealer
from stephttp._run.supervised import LoopWatch
from stephttp._wire.http import Request
from stephttp.options import Settings

if TYPE_CHECKING:
    import httpx2

    from stephttp._run.current import HandlerCall
    from stephttp._run.journal import Journal
    from stephttp._run.made_up_tokens import MadeUpTokens
    from stephttp._run.scope import RunScope

logger = logging.getLogger("stephttp")

J = TypeVar("J", bound="Journal")

_NO_KEY = (
    "there is no signing key, so the call of the server that continues the run could not be "
    "verified; set INNGEST_SIGNING_KEY, or INNGEST_DEV=1 for development"
)
SHUTDOWN_TIMEOUT = 10.0
"""Seconds that a shutting-down application waits for its finished runs to be delivered."""


class Replaced(TypedDict, total=False):
    """What tests replace of a `Runtime`; its arguments."""

    transport: httpx2.AsyncBaseTransport | None
    sync_transport: httpx2.BaseTransport | None
    now_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    pause: Callable[[float], Awaitable[Any]]
    sync_pause: Callable[[float], Any]
    rng: random.Random | None
    background: Callable[[AsyncDriver, SyncDriver], Background]


class HasRuntime(Protocol):
    """A `Provider`, as the middleware classes below it see it."""

    @property
    def runtime(self) -> Runtime: ...


class Runtime:
    """What all runs of one provider share.

    Args:
        settings: resolved settings.
        transport: carries API calls instead of the network. Leases are then renewed by
            `renew_leases` only, and not by a thread.
        sync_transport: the same for blocking callers and for threads.
        now_ns: the clock, nanoseconds since the epoch.
        monotonic_ns: a clock that never jumps, for the timeouts of functions that block.
        pause: waits for so many seconds.
        sync_pause: the same in threads.
        rng: jitter.
        background: does the work beside the requests.
    """

    _kept: list[dict[str, Any]]
    """What `replaced` gives back."""

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        sync_transport: httpx2.BaseTransport | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        pause: Callable[[float], Awaitable[Any]] = sleep,
        sync_pause: Callable[[float], Any] = time.sleep,
        rng: random.Random | None = None,
        background: Callable[[AsyncDriver, SyncDriver], Background] = Background,
    ) -> None:
        self.settings = settings
        self.now_ns = now_ns
        self.monotonic_ns = monotonic_ns
        self.loop_watch = LoopWatch(now_ns) if settings.dev else None
        """Names, in development, the steps that block the event loop."""
        self.deliveries = Deliveries()
        """The states of runs that came along with re-entries."""
        keys, rng = Keys.shared(*settings.keys), rng or random.Random()
        self.checkpoints = Checkpoints(
            settings, keys, now_ns, rng, Sealer(settings.keys), self.deliveries
        )
        url, headers = settings.base_url, settings.api_headers
        self._driver = AsyncDriver(url, transport=transport, pause=pause, headers=headers)
        self._sync_driver = SyncDriver(
            url, transport=sync_transport, pause=sync_pause, headers=headers
        )
        self.drive = self._driver.run
        """Carries out a flow of the checkpoint API: a coroutine."""
        self.drive_sync = self._sync_driver.run
        """Carries out a flow on the calling thread."""
        self.pause = pause
        """Waits for so many seconds: a coroutine."""
        self.pause_sync = sync_pause
        """Does the same on the calling thread."""
        self.holds = Holds()
        """Which threads are held for callers who wait, under WSGI."""
        self.stream = self._driver.stream
        """Makes one call of the server, and reads its answer as it comes."""
        self.stream_sync = self._sync_driver.stream
        """Does the same for blocking callers."""
        self.background = background(self._driver, self._sync_driver)
        self.outbox = Outbox(
            self.checkpoints.deliver,
            self.background.start,
            batches=self.checkpoints.takes_batches,
        )
        self.finished_runs = FinishedRuns(self.outbox)
        """The way of finished runs into the outbox."""
        renew = self._renew if transport is None else None
        self.leases = Leases(renew, lambda: monotonic_ns() / 1_000_000_000)
        self.keyed_lock = KeyedLock()
        """Lets one re-entry of a run at a time into this process (docs/design.md 3.11)."""
        self.watch: Callable[[HandlerCall, RunScope], None] | None = None
        """Sees each run that is made, in tests and replays."""
        self.warned_ids: set[str] | None = set() if settings.dev else None
        """The step ids of which `shared_ids` has warned; `None` outside of development."""
        self.opening = threading.Lock()
        """Held while a run is made: the steps of `def` routes are in threads."""
        self.locks_are = threading.Lock
        """What makes locks. gevent replaces it, in workers after the fork; see `renew_locks`."""
        self.cannot_wait = None if settings.dev or settings.keys else _NO_KEY
        """Why no run can wait for the server; `None` where they can."""
        self._has_warned = False
        self.waited: set[str] = set()
        """Endpoints of which a request has waited in this process."""
        self.endpoint_ids: set[str] = set()
        """The ids of decorated handlers."""
        all_runtimes.add(self)

    @contextmanager
    def replaced(self, settings: Settings, **replaced: Unpack[Replaced]) -> Generator[None]:
        """Work with other settings, transports and clocks for a while, and with an empty outbox:
        how `stephttp.testing` takes over an application that is already made.

        Where a block ends before one that began later, that one gives back what this one had.
        """
        kept = [vars(self).copy()]
        self.__init__(settings, **replaced)  # type: ignore[misc]
        self._kept = kept
        self.endpoint_ids = kept[0]["endpoint_ids"]
        try:
            yield
        finally:
            top = self._kept
            if top is kept:
                for name in vars(self).keys() - kept[0].keys():
                    del vars(self)[name]
                vars(self).update(kept[0])
            else:
                while (below := top[0]["_kept"]) is not kept:
                    top = below
                top[0] = kept[0]

    def refuse_waits(self, run: Run, reason: str) -> None:
        """Let a run refuse whatever has to wait. The first one warns of that: what is only made,
        as where tests import an application, may never need a key.

        Args:
            run: the run.
            reason: why it cannot wait.
        """
        run.refuse_waits(reason)
        if not self._has_warned:
            self._has_warned = True
            logger.warning("stephttp: requests that have to wait are refused: %s", reason)

    def journal(
        self,
        kind: type[J],
        run: Run,
        request: Callable[[], Request | None],
        mode: Checkpointing,
    ) -> J:
        """Return what reports a run to the server while its request is being answered."""
        return kind(
            run,
            request,
            mode,
            checkpoints=self.checkpoints,
            outbox=self.outbox,
            leases=self.leases,
            later=self.background.later,
        )

    async def aclose(self, timeout: float) -> bool:
        """Deliver what is left, then close the connections. Returns whether all was delivered."""
        delivered = await self.outbox.wait(timeout, self._alone())
        self.leases.close()
        await self._driver.aclose()
        self._sync_driver.close()
        return delivered

    def close(self, timeout: float) -> bool:
        """Do the same, blocking."""
        delivered = self.outbox.wait_sync(timeout, self._alone())
        self.leases.close()
        self._sync_driver.close()
        return delivered

    def _alone(self) -> Future[None] | None:
        """Return what is done once it is clear that there is no server, as in tests without an
        engine; `None` where one has answered this process, and is worth waiting for."""
        keys = self.checkpoints.keys
        if keys.features is not None:
            return None
        keys.missed = keys.missed or Future()
        return keys.missed

    def monotonic(self) -> float:
        """Return the time of a clock that never jumps, in seconds."""
        return self.monotonic_ns() / 1e9

    async def renew_leases(self) -> None:
        """Renew all leases now. With the network, a thread does that by itself.

        Raises:
            APIError: they could not be renewed.
        """
        for length_ms, run_ids in self.leases.batches().items():
            asked = self.leases.monotonic()
            lost = await self.drive(self.checkpoints.renew(run_ids, length_ms))
            self.leases.renewed(run_ids, lost, asked)

    def _renew(self, run_ids: list[str], length_ms: int) -> list[str]:
        return self._sync_driver.run(self.checkpoints.renew(run_ids, length_ms))

    def renew_locks(self) -> None:
        """Start afresh, because gevent has replaced the locks of `threading`: greenlets would wait
        for the old ones without letting each other run, and pass for one thread there."""
        self.reset_after_fork()

    @cached_property
    def made_up_tokens(self) -> MadeUpTokens:
        """The tokens at `result_path` that the server need not be asked about."""
        from stephttp._run.made_up_tokens import MadeUpTokens  # few programs need it

        return MadeUpTokens(self.settings.keys, self.monotonic)

    def preload(self) -> None:
        """Prepare the HTTP client of this event loop, which takes up to 0.1 s, before requests come
        that would wait for it."""
        if self.settings.background:  # if not, the host may start for each request
            self._driver.preload()

    def preload_before_fork(self) -> None:
        """Finish imports before this process is forked: a module that a thread has half imported by
        then would stay so in the child forever."""
        self._sync_driver.preload_before_fork()

    def reset_after_fork(self) -> None:
        """Start afresh in a process that was forked: the parent's threads do not exist there, and
        its locks and connections must not be touched."""
        self.background.reset_after_fork()
        self.outbox.reset_after_fork()
        self.finished_runs.reset_after_fork()
        self.leases.reset_after_fork()
        self.keyed_lock.reset_after_fork()
        self.deliveries.reset_after_fork()
        self.holds.reset_after_fork()
        self.__dict__.pop("made_up_tokens", None)
        self.opening = threading.Lock()
        self.locks_are = threading.Lock
        self._sync_driver.reset_after_fork()
