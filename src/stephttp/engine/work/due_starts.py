"""Runs of functions that were held, and are due: planned with the options that their functions have
by now, and started."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec.structs import replace

from stephttp.engine.model.function_start import Start
from stephttp.engine.model.held_start import Candidate, HeldStart, Hold
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.started import Started
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.functions import planning
from stephttp.engine.store import function_rows
from stephttp.engine.work import admission, holding, save

Planned = tuple[HeldStart, "Start | None"]
"""A held run, and what the options of its function make of its latest event."""


def plan(found: Sequence[HeldStart], now_ms: int) -> list[Planned]:
    """Plan held runs that are due. Expressions take time: call it outside of a transaction."""
    return [(one, _plan(one, now_ms)) for one in found]


def begin(connection: sqlite3.Connection, planned: Sequence[Planned], at: Moment) -> Started:
    """Begin held runs that are due, if they and their functions are as they were when planned.

    Others stay, and are to be planned again. What cannot be started is not held any longer, and
    those who wait for it learn why.
    """
    candidates: list[Candidate] = []
    withdrawn: list[tuple[str, ...]] = []
    for one, start in planned:
        if not holding.is_as_it_was(connection, one, at.now_ms):
            continue
        if start is None or one.function is None:
            withdrawn.append(holding.drop(connection, one.held))
            continue
        function = function_rows.load_function(connection, start.function.fn_id)
        if function is None or function.options == one.function.options:
            candidates.append(holding.release(connection, one.held, start))
    admitted = admission.admit_candidates(connection, candidates, at)
    admitted.refused += [(admission.WITHDRAWN, invokers) for invokers in withdrawn]
    return save.follow_admitted(connection, admitted, at)


def _plan(one: HeldStart, now_ms: int) -> Start | None:
    function = one.function
    if function is None:
        return None
    looks = planning.looks_into(function.options)
    content = expressions.read_event(one.latest.body) if looks else None
    start = planning.plan(function, one.latest, content, now_ms)
    # It has passed the limits, and what has held it does not hold it again.
    start = replace(start, idempotency=None, rate_limit=None, debounce=None)
    return replace(start, batch=None) if one.hold is Hold.BATCH else start
