"""Starts of functions: which of them become runs now."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec.structs import replace

from stephttp.engine.model.change import Change
from stephttp.engine.model.function import Function
from stephttp.engine.model.function_start import Start
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.run import NewRun
from stephttp.engine.rules.functions import starting
from stephttp.engine.store import function_rows, runs
from stephttp.engine.work.links import link


def admit(
    connection: sqlite3.Connection, starts: Sequence[Start], at: Moment
) -> list[tuple[NewRun, Change]]:
    """Store the runs that begin now, as functions are served by now.

    Returns:
        The runs, with their first changes; what follows from these is still to be done.
    """
    known = {
        fn_id: function_rows.load_function(connection, fn_id)
        for fn_id in {start.function.fn_id for start in starts}
    }
    begun = [
        starting.begin(replace(start, function=function.endpoint), at)
        for start in starts
        if (function := known[start.function.fn_id]) is not None and may_start(function)
    ]
    runs.insert_many(connection, begun)
    for new, _ in begun:
        # What has started the run does not end its waits as well.
        link(connection, new.run_id, new.event_id, "", received=True)
    return begun


def may_start(function: Function) -> bool:
    """Say whether a function is started at all."""
    return function.endpoint.refused is None and not function.paused
