"""Everything that the engine can do, without HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from stephttp._wire.opcodes import Op
from stephttp.engine.bulk import MOST_RUNS, Bulk, BulkOrders
from stephttp.engine.executor import Executor
from stephttp.engine.live.changes import Feed
from stephttp.engine.live.channels import Channels
from stephttp.engine.live.waiters import Waiters
from stephttp.engine.logs import log_event
from stephttp.engine.metrics import MOST_ENDPOINTS, Metrics
from stephttp.engine.model import tokens
from stephttp.engine.model.clock import Clock, SystemClock
from stephttp.engine.model.run import Cancellation, Change, Event, Refused
from stephttp.engine.model.settings import LONGEST_LEASE, Settings
from stephttp.engine.outbound.egress import Egress
from stephttp.engine.outbound.gateway import Gateway
from stephttp.engine.outbound.reentry_call import Caller
from stephttp.engine.probe import Finding, probe
from stephttp.engine.reading import Reader, RunFilter, latest_endpoints
from stephttp.engine.retention import Retention
from stephttp.engine.rules.event_message import parse_event
from stephttp.engine.rules.reruns import AS_IT_WAS, Edit
from stephttp.engine.store.funnel import Funnel
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.store.store import Store
from stephttp.engine.traces import otlp
from stephttp.engine.traces.arriving_spans import ArrivingSpans
from stephttp.engine.work import (
    batches,
    cancellations,
    events,
    idempotency,
    interventions,
    run_work,
    save,
)

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)


class Engine:
    """Everything but HTTP. Start it once, in the event loop that uses it, and stop it there.

    Args:
        settings: see `Settings`.
        clock: the time; tests pass a `VirtualClock`.
        rng: chance; a seeded one makes ids, jobs and jitter repeatable.
        transport: carries the calls of endpoints, e.g. `httpx2.ASGITransport` for an application
            in this process. By default they go over the network.

    Attributes:
        settings, clock, rng: as given.
        store: the database.
        waiters: who waits for which run to end.
        feed: who wants to know what changes.
        reader: what people want to see of runs.
        channels: who follows which run's stream.
        executor: what calls the endpoints.
        egress: which endpoints may be called.
        caller: what calls them.
        metrics: what is counted and measured.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        rng: Random | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.rng = rng or Random()
        self.metrics = Metrics()
        self.store = Store(settings.db_path, self.metrics.committed)
        self.waiters = Waiters()
        self.feed = Feed()
        self.channels = Channels()
        self.egress = Egress.of(settings)
        self.caller = Caller(settings, self.clock, self.rng, transport)
        self._gateway = Gateway(settings)
        self.executor = Executor(
            self.store,
            self.caller,
            self._gateway,
            self.waiters,
            self.channels,
            self.feed,
            self.clock,
            self.rng,
            settings,
            self.metrics,
        )
        self.reader = Reader(self.store, self.clock)
        self._bulk = BulkOrders(self.store, self.executor.moment, self._follow_all)
        self._spans = ArrivingSpans(self.store, self.metrics, self.clock, settings)
        self.executor.begun = self._spans.run_began
        self._retention = Retention(self.store, self.clock, settings)
        self._starts = Funnel(self.take)

    async def start(self) -> None:
        """Open the database and begin to work on what is due.

        Raises:
            ConfigurationError: the database cannot be used.
        """
        await self.store.open()
        known = partial(latest_endpoints, limit=MOST_ENDPOINTS)
        self.metrics.know(await self.store.read(known))
        # Nobody could renew a lease while the engine was not there.
        due_ms = self.clock.now_ms() + LONGEST_LEASE
        await self.store.write(
            lambda connection: connection.execute(
                QUERIES["extend_all_leases"], {"due_ms": due_ms}
            ).close()
        )
        self.executor.start()
        self._retention.start()

    async def stop(self) -> None:
        """Stop working, give up calls under way (they are repeated later), close the database."""
        self.drain()
        await self._retention.stop()
        await self.executor.stop()
        await self._spans.stop()
        await self.caller.close()
        await self._gateway.close()
        await self.store.close()

    def drain(self) -> None:
        """Call no further endpoints, and let everybody go who waits for an output.

        They are told to come back. Call it when a server begins to shut down, because servers
        wait for open requests.
        """
        self.executor.drain()
        self.waiters.release()
        self.feed.release()
        self.channels.release()

    async def idle(self) -> None:
        """Return once nothing is due and no endpoint is being called. For tests."""
        await self.executor.idle()

    async def start_run(self, opening: batches.Opening) -> None:
        """Store a first checkpoint, together with others that come at the same time.

        Raises:
            Refused: it is not acceptable.
        """
        taken = await self._starts.put(opening)
        if isinstance(taken, Refused):
            raise taken
        new = opening.new
        log_event(log, logging.INFO, "run.start", "run stored", run_id=new.run_id, fn=new.slug)

    async def report(
        self, run_id: str, ops: list[Op], dispatch: tuple[str, int] | None = None
    ) -> None:
        """Store a further checkpoint, sent from the call `dispatch` (job id, generation).

        Raises:
            Refused: it is not acceptable.
        """
        unit = partial(
            run_work.report, run_id=run_id, ops=ops, at=self.executor.moment(), dispatch=dispatch
        )
        await self.store.write(unit, self.executor.follow)

    async def take(self, items: Sequence[batches.Item]) -> list[batches.Taken | Refused]:
        """Store many checkpoints in one transaction; see `batches.take`."""
        unit = partial(batches.take, items=items, at=self.executor.moment())
        return await self.store.write(unit, self._follow_taken)

    async def claim(self, key: idempotency.Key, opening: batches.Opening) -> str:
        """Open a run for an idempotency key; returns the run that answers the request.

        Raises:
            Refused: see `idempotency.claim`.
        """
        unit = partial(idempotency.claim, key=key, opening=opening, at=self.executor.moment())
        return (await self.store.write(unit, self._follow_claim)).run_id

    async def renew(self, run_ids: Sequence[str], lease_ms: int) -> list[str]:
        """Move leases ahead; returns the runs that have none (any more)."""
        due_ms = self.clock.now_ms() + lease_ms
        return await self.store.write(partial(batches.renew, run_ids=run_ids, due_ms=due_ms))

    def _follow_claim(self, claimed: idempotency.Claimed) -> None:
        if claimed.change is not None:
            self.executor.follow(claimed.change)

    def _follow_taken(self, outcomes: Sequence[batches.Taken | Refused]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, batches.Taken):
                self.executor.follow(outcome.change)

    async def receive(self, received: Sequence[Event]) -> None:
        """Store events, and end the waits that they end."""
        unit = partial(events.receive, received=received, at=self.executor.moment())
        await self.store.write(unit, self._follow_received)

    async def send_event(self, raw: bytes) -> str:
        """Store one event, as JSON, as if it had been sent; its internal id.

        Raises:
            Refused: it is not acceptable.
        """
        now_ms = self.clock.now_ms()
        event_id = tokens.new_ulid(now_ms, self.rng)
        await self.receive([parse_event(raw, self.settings.max_event, event_id, now_ms)])
        return event_id

    async def signal(self, name: str, data: bytes) -> str:
        """End the wait for a signal; the id of the run that waited.

        Raises:
            Refused: nobody waits for it.
        """
        unit = partial(events.signal, name=name, data=data, at=self.executor.moment())
        change = await self.store.write(unit, self.executor.follow)
        return change.run.run_id

    async def trace(self, received: otlp.Received) -> int:
        """Keep spans with their runs. Those of runs that are not known (yet) wait a while for them.

        Returns:
            How many are not kept because their runs have as many as they may have.
        """
        return await self._spans.keep(received)

    async def probe(self, origin: str) -> Finding:
        """Call an application, such as `https://app.example.com`, to see whether that works."""
        return await probe(origin, self.store, self.egress, self.caller, self.clock, self.rng)

    async def rerun(self, run_id: str, edit: Edit = AS_IT_WAS) -> str:
        """Run the request of a run again.

        Args:
            run_id: the run; it may still be open.
            edit: what is different, and from which step on.

        Returns:
            The id of the new run.

        Raises:
            Refused: there is no such run, or the edit does not fit it.
        """
        unit = partial(interventions.rerun, run_id=run_id, edit=edit, at=self.executor.moment())
        change = await self.store.write(unit, self.executor.follow)
        return change.run.run_id

    async def resume(self, run_id: str, step_id: str | None = None) -> int:
        """Let a run continue now: what it waits for by time is due.

        Args:
            step_id: the one step that stops waiting; if it does not wait for a time, its wait
                ends as if it had lasted long enough. `None`: all sleeps, and what has failed is
                tried again.

        Returns:
            How many waits ended.

        Raises:
            Refused: there is no such run, or it does not wait for that.
        """
        at = self.executor.moment()
        unit = partial(interventions.resume, run_id=run_id, step_id=step_id, at=at)
        change = await self.store.write(unit, self.executor.follow)
        return len(change.timers)

    async def cancel(self, run_id: str) -> bool:
        """End a run as cancelled; `False` if it had ended already.

        Raises:
            Refused: there is no such run.
        """
        unit = partial(save.cancel, run_id=run_id, at=self.executor.moment())
        change = await self.store.write(unit, self.executor.follow)
        return change.ended

    async def cancel_many(self, cancellation: Cancellation) -> int:
        """Cancel the runs of a function that began in a span of time, and those to come.

        Returns:
            How many were cancelled now.

        Raises:
            Refused: there is no such function.
        """
        unit = partial(cancellations.create, cancellation=cancellation, at=self.executor.moment())
        changes = await self.store.write(unit, self._follow_all)
        return len(changes)

    async def cancel_matching(self, wanted: RunFilter, limit: int = MOST_RUNS) -> Bulk:
        """End runs as cancelled, the newest first; those that have ended stay as they are.

        Raises:
            Refused: the limit is not acceptable.
        """
        return await self._bulk.cancel(wanted, limit)

    async def rerun_matching(self, wanted: RunFilter, limit: int = MOST_RUNS) -> Bulk:
        """Run the requests of runs again, the newest first.

        Raises:
            Refused: the limit is not acceptable.
        """
        return await self._bulk.rerun(wanted, limit)

    def _follow_received(self, received: events.Received) -> None:
        self.metrics.received(received.stored)
        self.feed.publish(events=True)
        self._follow_all(received.changes)

    def _follow_all(self, changes: list[Change]) -> None:
        for change in changes:
            self.executor.follow(change)
