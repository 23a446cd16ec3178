"""Starts of functions: which of them become runs now, which are held, and which start nothing.

A start passes the options of its function in this order, as they are by now:

    option                 what it does
    idempotency, rateLimit refuse the start; what passes both is counted by both
    debounce               holds the event in place of an earlier one, until none comes
    batchEvents            holds the event, until there are enough of them
    singleton              refuses the start, or ends the run that there is, while one is open

All that they keep is stored in the transaction that stores the event.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from stephttp.engine.model.change import Change
from stephttp.engine.model.function import Function
from stephttp.engine.model.function_options import FunctionOptions
from stephttp.engine.model.function_start import Start
from stephttp.engine.model.held_start import Candidate
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.run import NewRun
from stephttp.engine.model.started import Refusal
from stephttp.engine.model.tokens import ULID_TIME, ascending_ulids, new_ulid
from stephttp.engine.rules.functions import starting
from stephttp.engine.rules.functions.limit_names import limit_name
from stephttp.engine.rules.functions.start_limits import limits_of
from stephttp.engine.store import function_rows, gate_rows, runs
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import holding, rates
from stephttp.engine.work.links import link

WITHDRAWN = Refusal("the function was withdrawn")


@dataclass(slots=True)
class Admitted:
    """What became of some starts.

    Attributes:
        begun: the runs that were stored, with their first changes; what follows from these is
            still to be done.
        displaced: runs that are to be cancelled, because a later one takes their place.
        refused: why starts are nothing, and who wait for their results.
        held_ms: when the first is due of those that are held.
    """

    begun: list[tuple[NewRun, Change]] = field(default_factory=list)
    displaced: list[str] = field(default_factory=list)
    refused: list[tuple[Refusal, tuple[str, ...]]] = field(default_factory=list)
    held_ms: int | None = None


def admit(connection: sqlite3.Connection, starts: Sequence[Start], at: Moment) -> Admitted:
    """Decide about starts, and store the runs that begin now and the events that are held."""
    return admit_candidates(connection, map(_candidate, starts), at)


def admit_candidates(
    connection: sqlite3.Connection, candidates: Iterable[Candidate], at: Moment
) -> Admitted:
    """Do for runs with one or more events what `admit` does."""
    admission = _Admission(connection, at)
    for candidate in candidates:
        admission.decide(candidate)
    return admission.store()


class _Admission:
    """Decides about starts, one after the other."""

    def __init__(self, connection: sqlite3.Connection, at: Moment) -> None:
        self._connection = connection
        self._at = at
        self._known: dict[str, Function | None] = {}
        self._admitted = Admitted()
        self._began: list[tuple[Candidate, tuple[NewRun, Change]]] = []
        self._singletons: dict[str, str] = {}
        self._latest_id: str | None = None

    def decide(self, candidate: Candidate) -> None:
        """Let one start pass the options of its function, as far as it gets."""
        function = self._function(candidate.start.function.fn_id)
        if function is None:
            self._refuse(candidate, WITHDRAWN)
            return
        if reason := function.why_not_started:
            self._refuse(candidate, Refusal(reason))
            return
        start = replace(candidate.start, function=function.endpoint)
        candidate = replace(candidate, start=start)
        used = rates.ask(self._connection, limits_of(start, function.options), self._at)
        if isinstance(used, Refusal):
            self._refuse(candidate, used)
            return
        held = self._hold(candidate, function.options)
        began = held is not None and self._begin(held, function.options)
        # An event that a singleton refuses has started nothing, and may come again.
        if began or held is not candidate:
            rates.use(self._connection, used, self._at)

    def store(self) -> Admitted:
        """Store the runs that begin."""
        runs.insert_many(self._connection, [run for _, run in self._began])
        for candidate, (new, _) in self._began:
            gate_rows.add(self._connection, new.run_id, candidate.start, self._at.now_ms)
            for event in candidate.events:
                # What has started the run does not end its waits as well.
                link(self._connection, new.run_id, event.event_id, "", received=True)
        self._admitted.begun = [run for _, run in self._began]
        return self._admitted

    def _function(self, fn_id: str) -> Function | None:
        if fn_id not in self._known:
            self._known[fn_id] = function_rows.load_function(self._connection, fn_id)
        return self._known[fn_id]

    def _hold(self, candidate: Candidate, options: FunctionOptions) -> Candidate | None:
        """Return what is to begin now; `None` if the events are held."""
        connection, start, at = self._connection, candidate.start, self._at
        if start.debounce is not None and options.debounce is not None:
            due_ms = holding.debounce(connection, candidate, start.debounce, options.debounce, at)
        elif start.batch is not None and options.batch is not None:
            batch = holding.gather(connection, candidate, start.batch, options.batch, at)
            if isinstance(batch, Candidate):
                return batch
            due_ms = batch
        else:
            return candidate
        earlier_ms = self._admitted.held_ms
        self._admitted.held_ms = due_ms if earlier_ms is None else min(due_ms, earlier_ms)
        return None

    def _begin(self, candidate: Candidate, options: FunctionOptions) -> bool:
        """Make the run, unless it has to be the only one and is not; say whether it begins."""
        start, invokers = candidate.start, candidate.invokers
        name = holder = None
        if start.singleton is not None and options.singleton is not None:
            name = limit_name(f"singleton {start.function.fn_id}", start.singleton)
            holder = self._holder(name)
            if holder is not None and not options.singleton.cancels:
                reason = f"singleton: run {holder} with the same key has not ended"
                self._refuse(candidate, Refusal(reason))
                return False
        first = replace(
            start,
            event=candidate.events[0],
            options=options,
            run_id=start.run_id or self._next_id(),
            invoked_by=invokers[0] if invokers else None,
        )
        new, change = starting.begin(first, self._at, candidate.events)
        self._began.append((candidate, (new, change)))
        if name is not None:
            self._singletons[name] = new.run_id
            self._connection.execute(QUERIES["save_singleton"], (name, new.run_id))
        if holder is not None:
            self._admitted.displaced.append(holder)
        if invokers and not start.run_id:
            self._await(invokers, new.run_id)
        return True

    def _next_id(self) -> str:
        """Return the id of a run: those of one millisecond come in the order of their starts."""
        now_ms, rng = self._at.now_ms, self._at.rng
        latest = self._latest_id
        if latest is None:
            time = new_ulid(now_ms, rng)[:ULID_TIME]
            found = self._connection.execute(QUERIES["latest_run_id"], {"time": time})
            (latest,) = found.fetchone()
        (run_id,) = ascending_ulids(1, now_ms, rng, latest)
        self._latest_id = run_id
        return run_id

    def _holder(self, name: str) -> str | None:
        """Return the open run that a singleton has."""
        if name in self._singletons:
            return self._singletons[name]
        row = self._connection.execute(QUERIES["open_singleton"], (name,)).fetchone()
        return None if row is None else str(row[0])

    def _await(self, invokers: Sequence[str], run_id: str) -> None:
        """Let steps wait for a run of which they did not know yet which one it would be."""
        for invoked_by in invokers:
            waiting, _, step_id = invoked_by.partition(".")
            self._connection.execute(QUERIES["await_run"], (run_id, waiting, step_id))
        further = [(run_id, invoked_by) for invoked_by in invokers[1:]]
        self._connection.executemany(QUERIES["add_invoker"], further)

    def _refuse(self, candidate: Candidate, why: Refusal) -> None:
        self._admitted.refused.append((why, candidate.invokers))


def _candidate(start: Start) -> Candidate:
    invokers = () if start.invoked_by is None else (start.invoked_by,)
    return Candidate(start, (start.event,), invokers)
