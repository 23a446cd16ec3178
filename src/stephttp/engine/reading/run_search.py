"""The search for runs by text (path, bodies, events, errors, steps) and filters: the indexes that
give candidates, and the query that checks them.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from stephttp.engine.model.run import RunStatus
from stephttp.engine.reading.list_filter import RunFilter, RunState
from stephttp.engine.reading.run_rows import AT_WORK, COLUMNS, RunRow, run_row
from stephttp.engine.reading.scanning import Bounds, like_patterns
from stephttp.engine.store.many_rows import json_array

_ENDED = {
    RunState.COMPLETED: RunStatus.COMPLETED,
    RunState.FAILED: RunStatus.FAILED,
    RunState.CANCELLED: RunStatus.CANCELLED,
}

_TEXT = """
AND (path LIKE :{0} ESCAPE '\\' OR query LIKE :{0} ESCAPE '\\' OR last_error LIKE :{0} ESCAPE '\\'
     OR CAST(error AS TEXT) LIKE :{0} ESCAPE '\\' OR CAST(body AS TEXT) LIKE :{0} ESCAPE '\\'
     OR CAST(output AS TEXT) LIKE :{0} ESCAPE '\\' OR EXISTS (
         SELECT 1 FROM function_runs WHERE function_runs.run_id = runs.run_id
         AND CAST(events AS TEXT) LIKE :{0} ESCAPE '\\'
     ) OR EXISTS (
         SELECT 1 FROM steps WHERE steps.run_id = runs.run_id AND seq > 0
         AND (CAST(opts AS TEXT) LIKE :{0} ESCAPE '\\' OR CAST(error AS TEXT) LIKE :{0} ESCAPE '\\'
              OR CAST(memo AS TEXT) LIKE :{0} ESCAPE '\\')))"""


class RunSearch:
    """A search for runs: `candidates` may be wanted, `examine` finds out which ones are.

    Args:
        newer: whether to search from older to newer runs.
    """

    def __init__(
        self, connection: sqlite3.Connection, wanted: RunFilter, now_ms: int, *, newer: bool
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._newer = newer
        self._order = "ASC" if newer else "DESC"
        self._query = COLUMNS
        self._values: dict[str, Any] = {"now_ms": now_ms}
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
            # Two states share a status; the outer query tells them apart.
            self._query = f"SELECT * FROM ({self._query}) WHERE 1 {_state_condition(wanted)}"
        self._query += f" ORDER BY seq {self._order}"

    def _require(self, condition: str, **values: Any) -> None:
        self._query += f" {condition}"
        self._values |= values

    def candidates(self, bounds: Bounds) -> Iterator[int]:
        """Return numbers of the runs that may be wanted, in order; they are read as needed."""
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
        """Return the wanted runs among these numbers."""
        values = self._values | {"seqs": json_array(seqs)}
        return [(row[0], run_row(row)) for row in self._connection.execute(self._query, values)]

    @property
    def _only_running(self) -> bool:
        states = self._wanted.states
        return RunState.RUNNING in states and RunState.WAITING not in states

    def _statuses(self) -> list[RunStatus]:
        states = self._wanted.states or frozenset(RunState)
        statuses = {status for state, status in _ENDED.items() if state in states}
        if RunState.RUNNING in states:
            statuses.add(RunStatus.SYNC)
        if RunState.WAITING in states:
            statuses.add(RunStatus.ASYNC)
        return [status for status in RunStatus if status in statuses]

    def _fn_ids(self) -> list[str]:
        names = json_array(self._wanted.endpoints)
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
        """Return async runs whose work is due; they are few among those that wait."""
        rows = self._connection.execute(
            # CROSS JOIN makes SQLite begin with the timers; each half has an index of its own.
            f"""SELECT DISTINCT seq, fn_id FROM (
                    SELECT run_id FROM timers
                    WHERE due_ms <= :now_ms AND kind != 'gateway' AND kind IN {AT_WORK}
                    UNION ALL
                    SELECT run_id FROM timers WHERE due_ms <= :now_ms AND kind = 'gateway'
                ) CROSS JOIN runs USING (run_id)
                WHERE seq > :above AND seq < :below ORDER BY seq {self._order}""",
            {"now_ms": self._values["now_ms"], "above": bounds.above, "below": bounds.below},
        )
        return (seq for seq, fn_id in rows if fn_ids is None or fn_id in fn_ids)

    def _by_id(self, first: str, last: str) -> list[int] | None:
        """Return numbers of the runs in a range of ids; `None` if there are too many."""
        most = 5000
        rows = self._connection.execute(
            "SELECT seq FROM runs WHERE run_id >= ? AND run_id < ? LIMIT ?", (first, last, most)
        ).fetchall()
        return None if len(rows) == most else [seq for (seq,) in rows]


def _state_condition(wanted: RunFilter) -> str:
    conditions = {
        RunState.RUNNING: "status = 'sync' OR at_work",
        RunState.WAITING: "status = 'async' AND NOT at_work",
        RunState.COMPLETED: "status = 'completed'",
        RunState.FAILED: "status = 'failed'",
        RunState.CANCELLED: "status = 'cancelled'",
    }
    return f"AND ({' OR '.join(f'({conditions[state]})' for state in sorted(wanted.states))})"


def _prefix_range(prefix: str) -> tuple[str, str]:
    """Return the range of ids with a prefix; ids consist of digits and capitals."""
    return prefix.upper(), prefix.upper() + "~"
