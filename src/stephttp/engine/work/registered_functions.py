"""Apps that register functions, and what starts these: events, and callers who name them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from stephttp.engine.model.change import Change
from stephttp.engine.model.function import Function, Registration
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Endpoint
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.rules.functions import starting
from stephttp.engine.rules.functions.starting import StartingEvent
from stephttp.engine.store import function_rows, runs
from stephttp.engine.work import save


@dataclass(frozen=True, slots=True)
class Registered:
    """What a registration has changed; `functions` are all that there are now, of all apps."""

    modified: bool
    functions: list[Function]


def register(connection: sqlite3.Connection, registration: Registration, at: Moment) -> Registered:
    """Store what an app registers, unless that is known already."""
    modified = not function_rows.is_known(connection, registration)
    if modified:
        function_rows.save(connection, registration, at.now_ms)
    return Registered(modified, function_rows.load_functions(connection) if modified else [])


def remove(connection: sqlite3.Connection, url: str, at: Moment) -> Registered:
    """Forget the app at an address."""
    modified = function_rows.remove(connection, url)
    return Registered(modified, function_rows.load_functions(connection) if modified else [])


def start(
    connection: sqlite3.Connection, started: Sequence[tuple[Endpoint, StartingEvent]], at: Moment
) -> list[Change]:
    """Start functions, each with an event, where they are served by now."""
    known = {
        fn_id: function_rows.load_function(connection, fn_id)
        for fn_id in {function.fn_id for function, _ in started}
    }
    begun = [
        starting.begin(known_now, event, at, new_ulid(at.now_ms, at.rng))
        for function, event in started
        if (known_now := known[function.fn_id]) is not None and known_now.refused is None
    ]
    runs.insert_many(connection, begun)
    for new, _ in begun:
        # What has started the run does not end its waits as well.
        save.link(connection, new.run_id, new.event_id, "", received=True)
    return [save.begun(connection, new, first, (), at) for new, first in begun]


def invoke(
    connection: sqlite3.Connection, slug: str, event: StartingEvent, at: Moment
) -> list[Change]:
    """Start one function with an event that is for it alone.

    Raises:
        Refused: there is no such function, or it cannot be started.
    """
    function = function_rows.load_function(connection, slug)
    if function is None:
        raise Refused(f"function: there is no function {slug[:200]!r}", 404)
    if function.refused is not None:
        raise Refused(f"function: {slug[:200]!r} is not started: {function.refused}")
    return start(connection, [(function, event)], at)
