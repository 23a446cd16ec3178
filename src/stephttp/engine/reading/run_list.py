"""The list of runs."""

from __future__ import annotations

import heapq
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from stephttp._wire.ids import CAPSULE
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.timer import RESUME, TimerKind
from stephttp.engine.reading.list_filter import Page, PageRequest, RunFilter, State
from stephttp.engine.reading.scanning import (
    Bounds,
    Stop,
    Times,
    check,
    cursor_bounds,
    like_patterns,
    search,
    time_bounds,
)
from stephttp.engine.store.runs import unknown

_ENDED = {
    State.COMPLETED: RunStatus.COMPLETED,
    State.FAILED: RunStatus.FAILED,
    State.CANCELLED: RunStatus.CANCELLED,
}
_TIMES = Times("runs", "created_ms")
_AT_WORK = "('resume', 'planned', 'racing', 'gateway')"
"""Timers that stand for work which, when it is due, is being done."""

_COLUMNS = f"""
SELECT seq, run_id, status, slug, method, path, created_ms, began_ms, first_ns, ended_ms, attempt,
       step_count - EXISTS (
           SELECT 1 FROM steps WHERE steps.run_id = runs.run_id AND step_id = :capsule),
       last_error, error, rerun_of,
       async_ms IS NOT NULL,
       status = 'async' AND EXISTS (
           SELECT 1 FROM timers WHERE timers.run_id = runs.run_id AND due_ms <= :now_ms
           AND kind IN {_AT_WORK}) AS at_work
FROM runs WHERE seq IN (SELECT value FROM json_each(:seqs))"""

_TEXT = """
AND (path LIKE :{0} ESCAPE '\\' OR query LIKE :{0} ESCAPE '\\' OR last_error LIKE :{0} ESCAPE '\\'
     OR CAST(error AS TEXT) LIKE :{0} ESCAPE '\\' OR CAST(body AS TEXT) LIKE :{0} ESCAPE '\\'
     OR CAST(output AS TEXT) LIKE :{0} ESCAPE '\\' OR EXISTS (
         SELECT 1 FROM steps WHERE steps.run_id = runs.run_id AND step_id <> :capsule
         AND (CAST(opts AS TEXT) LIKE :{0} ESCAPE '\\' OR CAST(error AS TEXT) LIKE :{0} ESCAPE '\\'
              OR CAST(memo AS TEXT) LIKE :{0} ESCAPE '\\')))"""


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that a run waits for.

    Attributes:
        kind: as `TimerKind`.
        step_id, step: of the step that waits, its hash and what the user called it; `None`: it is
            the call of the endpoint.
        key: name of the event or signal, or id of the invoked run.
        condition: CEL that the event must fulfil.
        due_ms: until when, at the latest.
    """

    kind: TimerKind
    step_id: str | None
    step: str | None
    key: str | None
    condition: str | None
    due_ms: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run, in a list.

    Attributes:
        status: as stored; `state`: as people see it.
        endpoint: slug.
        created_ms: when it was first reported.
        began_ms: when its request came in.
        first_ms: milliseconds that its first phase took; `None`: it goes on.
        attempt: failed attempts of the present call.
        error: why it failed, as JSON with `name` and `message`.
        waiting_for: what is due or waited for; empty once it has ended.
        step_count: how many steps are known, without the one that keeps the request
            (docs/design.md 3.3).
        rerun_of: the run that it repeats.
        went_async: it left its caller, and goes or went on in the background.
    """

    run_id: str
    status: RunStatus
    state: State
    endpoint: str
    method: str
    path: str
    created_ms: int
    began_ms: int
    first_ms: float | None
    ended_ms: int | None
    attempt: int
    step_count: int
    last_error: str | None
    error: bytes | None
    rerun_of: str | None
    went_async: bool
    waiting_for: tuple[Wait, ...] = ()


def list_runs(
    connection: sqlite3.Connection,
    wanted: RunFilter,
    page: PageRequest,
    now_ms: int,
    stop: Stop = lambda: False,
) -> Page[RunRow]:
    """Runs, newest first, as they were reported.

    Args:
        wanted: which ones.
        page: which part of the list.
        now_ms: the present time.
        stop: whether the search has taken long enough. A page without a filter, or with filters
            for endpoint, state or time, is found at once; filters for text, and rare combinations,
            need a search, which looks at `MOST_EXAMINED` runs at most.

    Raises:
        Refused: limit or cursor are none.
    """
    check(page)
    times = time_bounds(connection, _TIMES, wanted.after_ms, wanted.before_ms)
    bounds = cursor_bounds(page).within(times)
    select = _Select(connection, wanted, now_ms, newer=page.newer)
    found = search(select.candidates(bounds), select.examine, page.limit, stop)
    shown = found.page(page, connection, _TIMES)
    return replace(shown, items=_with_waits(connection, shown.items))


def load_row(connection: sqlite3.Connection, run_id: str, now_ms: int) -> RunRow:
    """One run, as the list tells of it.

    Raises:
        Refused: there is no such run.
    """
    found = connection.execute("SELECT seq FROM runs WHERE run_id = ?", (run_id,)).fetchall()
    select = _Select(connection, RunFilter(), now_ms, newer=False)
    rows = [row for _, row in select.examine([seq for (seq,) in found])]
    if not rows:
        raise unknown(run_id)
    return _with_waits(connection, rows)[0]


def matching(
    connection: sqlite3.Connection, wanted: RunFilter, below: int, limit: int, now_ms: int
) -> tuple[list[str], int | None]:
    """Ids of wanted runs, newest first, whose numbers are below another; and below which to go on,
    if there may be more."""
    times = time_bounds(connection, _TIMES, wanted.after_ms, wanted.before_ms)
    select = _Select(connection, wanted, now_ms, newer=False)
    candidates = select.candidates(times.within(Bounds(below=below)))
    found = search(candidates, select.examine, limit, lambda: False)
    last = found.rows[-1][0] if found.stopped_at is None and found.rows else found.stopped_at
    return [row.run_id for _, row in found.rows], last if found.more else None


def state_of(status: RunStatus, *, at_work: bool) -> State:
    """Where a run stands, as people see it."""
    if status.ended:
        return State(status.value)
    return State.RUNNING if at_work or status is RunStatus.SYNC else State.WAITING


def load_waits(connection: sqlite3.Connection, run_ids: Iterable[str]) -> dict[str, list[Wait]]:
    """What open runs wait for, by run, what is due first coming first."""
    rows = connection.execute(
        """
        SELECT timers.run_id, kind, timers.step_id, coalesce(userland_id, name), key, condition,
               due_ms
        FROM timers LEFT JOIN steps USING (run_id, step_id)
        WHERE timers.run_id IN (SELECT value FROM json_each(?)) AND kind NOT IN ('lease', 'orphan')
        ORDER BY due_ms""",
        (msgspec.json.encode(list(run_ids)).decode(),),
    )
    waits = defaultdict(list)
    for run_id, kind, step_id, *others in rows:
        own = step_id == RESUME
        waits[run_id].append(Wait(TimerKind(kind), None if own else step_id, *others))
    return waits


class _Select:
    """A search for runs."""

    def __init__(
        self, connection: sqlite3.Connection, wanted: RunFilter, now_ms: int, *, newer: bool
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._newer = newer
        self._order = "ASC" if newer else "DESC"
        self._query = _COLUMNS
        self._values: dict[str, Any] = {"now_ms": now_ms, "capsule": CAPSULE}
        if wanted.after_ms is not None:
            self._require("AND created_ms >= :after_ms", after_ms=wanted.after_ms)
        if wanted.before_ms is not None:
            self._require("AND created_ms < :before_ms", before_ms=wanted.before_ms)
        if wanted.run_id:
            first, last = _prefix_range(wanted.run_id)
            self._require("AND run_id >= :first AND run_id < :last", first=first, last=last)
        if wanted.rerun_of:
            self._require("AND rerun_of = :rerun_of", rerun_of=wanted.rerun_of)
        if wanted.text:
            patterns = {f"text{n}": text for n, text in enumerate(like_patterns(wanted.text))}
            conditions = " OR ".join(f"(1 {_TEXT.format(name)})" for name in patterns)
            self._require(f"AND ({conditions})", **patterns)
        if wanted.states:
            # Of the states that share a status, a query tells which it is.
            self._query = f"SELECT * FROM ({self._query}) WHERE 1 {_state_condition(wanted)}"
        self._query += f" ORDER BY seq {self._order}"

    def _require(self, condition: str, **values: Any) -> None:
        self._query += f" {condition}"
        self._values |= values

    def candidates(self, bounds: Bounds) -> Iterator[int]:
        """Numbers of the runs that may be wanted, in order, as they are asked for."""
        wanted = self._wanted
        if wanted.run_id:
            known = self._by_id(*_prefix_range(wanted.run_id))
            if known is not None:
                chosen = [seq for seq in known if bounds.above < seq < bounds.below]
                return iter(sorted(chosen, reverse=not self._newer))
        if wanted.rerun_of:
            return self._indexed("rerun_of = ?", (wanted.rerun_of,), bounds)
        fn_ids = self._fn_ids() if wanted.endpoints else None
        statuses = self._statuses()
        if fn_ids is not None:
            sources = [
                self._indexed("fn_id = ? AND status = ?", (fn_id, status), bounds)
                for fn_id in fn_ids
                for status in statuses
            ]
        elif statuses == list(RunStatus):
            sources = [self._indexed("1", (), bounds)]
        else:
            sources = [self._indexed("status = ?", (status,), bounds) for status in statuses]
        if self._only_running:
            sources.append(self._due(fn_ids, bounds))
        return heapq.merge(*sources, reverse=not self._newer)

    def examine(self, seqs: Sequence[int]) -> list[tuple[int, RunRow]]:
        """Those that are wanted."""
        values = self._values | {"seqs": msgspec.json.encode(seqs).decode()}
        return [(row[0], _row(row)) for row in self._connection.execute(self._query, values)]

    @property
    def _only_running(self) -> bool:
        states = self._wanted.states
        return State.RUNNING in states and State.WAITING not in states

    def _statuses(self) -> list[RunStatus]:
        states = self._wanted.states or frozenset(State)
        statuses = {status for state, status in _ENDED.items() if state in states}
        if State.RUNNING in states:
            statuses.add(RunStatus.SYNC)
        if State.WAITING in states:
            statuses.add(RunStatus.ASYNC)
        return [status for status in RunStatus if status in statuses]

    def _fn_ids(self) -> list[str]:
        names = msgspec.json.encode(self._wanted.endpoints).decode()
        rows = self._connection.execute(
            """SELECT fn_id FROM endpoints
               WHERE slug IN (SELECT value FROM json_each(:names))
                     OR fn_id IN (SELECT value FROM json_each(:names))""",
            {"names": names},
        )
        return [fn_id for (fn_id,) in rows]

    def _indexed(self, condition: str, values: tuple[str, ...], bounds: Bounds) -> Iterator[int]:
        rows = self._connection.execute(
            f"SELECT seq FROM runs WHERE {condition} AND seq > ? AND seq < ? "
            f"ORDER BY seq {self._order}",
            (*values, bounds.above, bounds.below),
        )
        return (seq for (seq,) in rows)

    def _due(self, fn_ids: Sequence[str] | None, bounds: Bounds) -> Iterator[int]:
        """Runs that wait no more; they are few among those that do."""
        rows = self._connection.execute(
            # CROSS JOIN makes SQLite begin with the timers; each half has an index of its own.
            f"""SELECT DISTINCT seq, fn_id FROM (
                    SELECT run_id FROM timers
                    WHERE due_ms <= :now_ms AND kind != 'gateway' AND kind IN {_AT_WORK}
                    UNION ALL
                    SELECT run_id FROM timers WHERE due_ms <= :now_ms AND kind = 'gateway'
                ) CROSS JOIN runs USING (run_id)
                WHERE seq > :above AND seq < :below ORDER BY seq {self._order}""",
            {"now_ms": self._values["now_ms"], "above": bounds.above, "below": bounds.below},
        )
        return (seq for seq, fn_id in rows if fn_ids is None or fn_id in fn_ids)

    def _by_id(self, first: str, last: str) -> list[int] | None:
        """Numbers of the runs in a range of ids; `None` if they are many."""
        most = 5000
        rows = self._connection.execute(
            "SELECT seq FROM runs WHERE run_id >= ? AND run_id < ? LIMIT ?", (first, last, most)
        ).fetchall()
        return None if len(rows) == most else [seq for (seq,) in rows]


def _state_condition(wanted: RunFilter) -> str:
    conditions = {
        State.RUNNING: "status = 'sync' OR at_work",
        State.WAITING: "status = 'async' AND NOT at_work",
        State.COMPLETED: "status = 'completed'",
        State.FAILED: "status = 'failed'",
        State.CANCELLED: "status = 'cancelled'",
    }
    return f"AND ({' OR '.join(f'({conditions[state]})' for state in sorted(wanted.states))})"


def _prefix_range(prefix: str) -> tuple[str, str]:
    """The ids that begin so; they consist of digits and capital letters."""
    return prefix.upper(), prefix.upper() + "~"


def _row(row: Sequence[Any]) -> RunRow:
    _, run_id, status, *names, first_ns, ended_ms, attempt, step_count = row[:12]
    last_error, error, rerun_of, went_async, at_work = row[12:]
    known = RunStatus(status)
    state = state_of(known, at_work=bool(at_work))
    first_ms = None if first_ns is None else first_ns / 1_000_000
    values: list[Any] = [run_id, known, state, *names, first_ms, ended_ms, attempt, step_count]
    values += [last_error, error, rerun_of, bool(went_async)]
    return RunRow(*values)


def _with_waits(connection: sqlite3.Connection, rows: Sequence[RunRow]) -> tuple[RunRow, ...]:
    waits = load_waits(connection, (row.run_id for row in rows if row.status is RunStatus.ASYNC))
    return tuple(_waiting(row, waits[row.run_id]) if row.run_id in waits else row for row in rows)


def _waiting(row: RunRow, waits: list[Wait]) -> RunRow:
    return replace(row, waiting_for=tuple(waits))
