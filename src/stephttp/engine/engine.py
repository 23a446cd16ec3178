"""`Engine`: everything that the engine can do, without HTTP; starts, drains and stops its parts."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

from stephttp._wire.opcodes import Op
from stephttp._wire.stored_state import CallId
from stephttp.engine.arriving_metadata import ArrivingMetadata
from stephttp.engine.background_task import BackgroundTask
from stephttp.engine.bulk import BulkActions
from stephttp.engine.deliverer import Deliverer
from stephttp.engine.executor import Executor
from stephttp.engine.functions.registry import Functions
from stephttp.engine.live.changes import AfterCommit, Changes, Waiters
from stephttp.engine.live.channels import Channels
from stephttp.engine.live.stream_listeners import StreamListeners
from stephttp.engine.logs import log_event
from stephttp.engine.metrics import MOST_ENDPOINTS, Metrics
from stephttp.engine.model.change import Change
from stephttp.engine.model.clock import Alarm, Clock, SystemClock
from stephttp.engine.model.inputs import EventArrival, Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.settings import Settings
from stephttp.engine.outbound.egress import Egress
from stephttp.engine.outbound.gateway import Gateway
from stephttp.engine.outbound.reentry_call import EndpointCaller
from stephttp.engine.outbound.under_way import Heard
from stephttp.engine.probe import ProbeFinding, probe
from stephttp.engine.reading import Reader, latest_endpoints
from stephttp.engine.retention import Retention
from stephttp.engine.rules.reruns import AS_IT_WAS, Edit
from stephttp.engine.run_streams import RunStreams
from stephttp.engine.store.store import Store
from stephttp.engine.traces.arriving_spans import ArrivingSpans
from stephttp.engine.work import events, idempotency, interventions, leases, save
from stephttp.engine.work.checkpoints import Item, Taken, take
from stephttp.engine.work.first_calls import open_within_limits
from stephttp.engine.work.keys import ScopedKey
from stephttp.engine.work.report import report, report_from
from stephttp.engine.work.start import FirstCheckpoint

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

T = TypeVar("T")


class Engine:
    """Everything but HTTP. Start it once, in the event loop that uses it, and stop it there.

    Args:
        settings: see `Settings`.
        clock: the time; tests pass a `VirtualClock`.
        rng: chance; a seeded one makes ids, jobs and jitter repeatable.
        transport: carries the calls of endpoints, e.g. `httpx2.ASGITransport` for an application
            in this process. By default they go over the network.
        gateway: carries the HTTP requests of steps; likewise.

    Attributes:
        settings, clock, rng: as given.
        store, waiters, changes, channels, streams, reader, executor, egress, caller, metrics,
            after, functions, metadata, spans, bulk: the parts of the engine; see their classes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        rng: Random | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        gateway: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.rng = rng or Random()
        self.metrics = Metrics()
        self.store = Store(settings.db_path, self.metrics.committed)
        self.waiters = Waiters()
        self.changes = Changes()
        self.channels = Channels()
        following = StreamListeners()
        self.streams = RunStreams(self.store, following, self.clock, self.rng, settings)
        self.egress = Egress.of(settings)
        self.caller = EndpointCaller(settings, self.clock, self.rng, transport)
        self._gateway = Gateway(settings, gateway)
        self.spans = ArrivingSpans(self.store, self.metrics, self.clock, settings)
        self.metadata = ArrivingMetadata(self.store, self.clock, self.changes.publish)
        alarm = Alarm(self.clock)
        self.after = AfterCommit(
            self.waiters, self.changes, following, alarm, self.metrics.changed,
            [self.spans.early, self.metadata.early], settings,
        )  # fmt: skip
        self.executor = Executor(
            self.store, self.caller, self._gateway, self.metrics, self.changes,
            alarm, self.after, self.moment, self.clock, settings,
        )  # fmt: skip
        self._deliverer = Deliverer(self.store, self.clock, self.moment, self.after.follow_all)
        self.after.looks_back = self._deliverer.wake
        self.bulk = BulkActions(self.store, self.moment, self.after.follow_all)
        self.functions = Functions(
            self.store, self.moment, self.clock, self.after, self.egress,
            self.executor.limits_changed,
        )  # fmt: skip
        self.reader = Reader(self.store, self.clock)
        self._retention = Retention(self.store, self.clock, settings)
        self._working: tuple[Executor | BackgroundTask, ...] = (
            self.executor, self._deliverer, *self.functions.tasks,
        )  # fmt: skip
        self._parts = (*self._working, self._retention, self.streams)

    def moment(self) -> Moment:
        """Return the present, as transitions see it."""
        return Moment(self.clock.now_ms(), self.rng, self.settings)

    async def start(self) -> None:
        """Open the database and start to work on what is due.

        Raises:
            ConfigurationError: the database cannot be used.
        """
        await self.store.open()
        known = partial(latest_endpoints, limit=MOST_ENDPOINTS)
        self.metrics.know(await self.store.read(known))
        await self.functions.load()
        await self.store.write(partial(leases.extend_all, now_ms=self.clock.now_ms()))
        for part in self._parts:
            part.start()

    async def stop(self) -> None:
        """Stop working, give up calls under way (they are repeated later), close the database."""
        self.drain()
        for part in (*reversed(self._parts), self.spans.early, self.metadata.early):
            await part.stop()
        for resource in (self.caller, self._gateway, self.store):
            await resource.close()

    def drain(self) -> None:
        """Call no further endpoints, and answer all requests that wait for an output or a change.

        Their clients are asked to come back. Call it when a server starts to shut down, because
        servers wait for open requests.
        """
        self.executor.drain()
        for live in (self.waiters, self.changes, self.channels, self.streams):
            live.release()

    async def idle(self) -> None:
        """Return once nothing is due and no endpoint is being called. For tests."""
        while not all(part.rests for part in self._working):
            for part in self._working:
                await part.idle()

    async def start_run(self, opening: FirstCheckpoint) -> None:
        """Store a first checkpoint, together with others that come at the same time.

        Raises:
            Refused: it is not acceptable.
        """
        taken = await self.store.write_together(self._take, opening, self._follow_taken)
        if isinstance(taken, Refused):
            raise taken
        if log.isEnabledFor(logging.INFO):
            new = opening.new
            log_event(log, logging.INFO, "run.start", "run stored", run_id=new.run_id, fn=new.slug)

    async def report(
        self,
        run_id: str,
        ops: list[Op],
        dispatch: tuple[str, int] | None = None,
        call: CallId | None = None,
    ) -> bool:
        """Store a further checkpoint.

        Args:
            dispatch: the call that it was sent from (job id, generation).
            call: the same, of an SDK that names it so.

        Returns:
            Whether that `call` was superseded.

        Raises:
            Refused: it is not acceptable.
        """
        if call is None:
            await self._change(partial(report, run_id=run_id, ops=ops, dispatch=dispatch))
            return False
        unit_from = partial(report_from, run_id=run_id, ops=ops, call=call)
        _, superseded = await self._write(unit_from, lambda done: self.after.follow(done[0]))
        return self.caller.hear(run_id, call) is not Heard.CURRENT or superseded

    async def take(self, items: Sequence[Item]) -> list[Taken | Refused]:
        """Store many checkpoints in one transaction; see `checkpoints.take`."""
        return await self._write(partial(take, items=items), lambda done: self._follow_taken(*done))

    async def claim(self, key: ScopedKey, opening: FirstCheckpoint) -> str:
        """Open a run for an idempotency key, and return the run that answers the request.

        Raises:
            Refused: see `idempotency.claim`.
        """
        unit = partial(idempotency.claim, key=key, opening=opening)
        claimed = await self._write(unit, self._follow_claimed)
        return claimed.run_id

    async def open_within_limits(self, opening: FirstCheckpoint) -> Taken | int:
        """Open a run, unless one of its limits has no room; see `first_calls`.

        Raises:
            Refused: the opening is not acceptable.
        """
        under_way = {gate.name: self.executor.gates.under_way(gate.name) for gate in opening.gates}
        unit = partial(open_within_limits, opening=opening, under_way=under_way)
        outcome = await self._write(unit, self._follow_opened)
        if isinstance(outcome, int):
            new = opening.new
            log_event(
                log, logging.INFO, "run.over_limit", "first call refused, its limits have no room",
                run_id=new.run_id, fn=new.slug, retry_after=outcome,
            )  # fmt: skip
        return outcome

    async def renew(self, run_ids: Sequence[str], lease_ms: int) -> list[str]:
        """Move leases ahead, and return the runs that have none (any more)."""
        due_ms = self.clock.now_ms() + lease_ms
        return await self.store.write(partial(leases.renew, run_ids=run_ids, due_ms=due_ms))

    async def receive(self, received: Sequence[EventArrival]) -> None:
        """Store events, end the waits that they end, and start the functions that they start."""
        planned = await self.functions.started_by(received)
        unit = partial(events.receive, received=received, planned=planned)
        await self._write(unit, self._follow_events)

    async def signal(self, name: str, data: bytes) -> str:
        """End the wait for a signal, and return the id of the run that waited.

        Raises:
            Refused: no step waits for it.
        """
        change = await self._change(partial(events.signal, name=name, data=data))
        return change.run.run_id

    async def probe(self, origin: str) -> ProbeFinding:
        """Call an application, such as `https://app.example.com`, to see whether that works."""
        return await probe(origin, self.store, self.egress, self.caller, self.clock, self.rng)

    async def rerun(self, run_id: str, edit: Edit = AS_IT_WAS) -> str:
        """Run the request of a run again, and return the id of the new run.

        Args:
            run_id: the run; it may still be open.
            edit: what is different, and from which step on.

        Raises:
            Refused: there is no such run, or the edit does not fit it.
        """
        change = await self._change(partial(interventions.rerun, run_id=run_id, edit=edit))
        return change.run.run_id

    async def resume(self, run_id: str, step_id: str | None = None) -> int:
        """Let a run continue now, without waiting for the time, and return how many waits ended.

        Args:
            step_id: the one step that stops waiting; if it does not wait for a time, its wait
                ends as if it had lasted long enough. `None`: all sleeps, and what has failed is
                tried again.

        Raises:
            Refused: there is no such run, or it does not wait for that.
        """
        change = await self._change(partial(interventions.resume, run_id=run_id, step_id=step_id))
        return len(change.timers)

    async def cancel(self, run_id: str) -> bool:
        """End a run as cancelled, and return `False` if it had ended already.

        Raises:
            Refused: there is no such run.
        """
        change = await self._change(partial(save.cancel, run_id=run_id))
        return change.ended

    def _take(self, connection: sqlite3.Connection, items: Sequence[Item]) -> list[Taken | Refused]:
        return take(connection, items, self.moment())

    def _follow_taken(self, *outcomes: Taken | Refused) -> None:
        self.after.follow_all(taken.change for taken in outcomes if isinstance(taken, Taken))

    def _follow_claimed(self, run: idempotency.ClaimedRun) -> None:
        if run.change is not None:
            self.after.follow(run.change)

    def _follow_opened(self, outcome: Taken | int) -> None:
        if isinstance(outcome, Taken):
            self.after.follow(outcome.change)

    def _follow_events(self, stored: events.StoredEvents) -> None:
        self.metrics.received(stored.count)
        self.changes.publish(events=True)
        self.after.follow_all(stored.changes)
        if stored.left:
            self.after.looks_back()
        if stored.backlog:
            self.after.left()
        if stored.held_ms is not None:
            self.after.held(stored.held_ms)

    async def _change(self, unit: Callable[..., Change]) -> Change:
        return await self._write(unit, self.after.follow)

    async def _write(self, unit: Callable[..., T], follow: Callable[[T], None]) -> T:
        """Run a unit of work as of now; `follow` is called with its result after the commit."""
        return await self.store.write(partial(unit, at=self.moment()), follow)
