"""Apps that register functions, and what starts these: events, and callers who name them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from stephttp.engine.model.function import Function, Registration
from stephttp.engine.model.function_start import PlannedStarts, Start, StartingEvent
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.started import Started
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.functions import planning
from stephttp.engine.store import function_rows
from stephttp.engine.work import backlog, save, schedules
from stephttp.engine.work.backlog import BacklogEvent

_SHOWN = 200
"""Characters of a name, in what is said of it."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What has changed; `functions` are all that there are now, of all apps, if anything has."""

    modified: bool
    functions: list[Function]


def register(connection: sqlite3.Connection, registration: Registration, at: Moment) -> Registered:
    """Store what an app registers, unless that is known already."""
    modified = not function_rows.is_known(connection, registration)
    if modified:
        function_rows.save(connection, registration, at.now_ms)
    return _registered(connection, at, modified=modified)


def remove(connection: sqlite3.Connection, url: str, at: Moment) -> Registered:
    """Forget the app at an address."""
    modified = function_rows.remove(connection, url)
    return _registered(connection, at, modified=modified)


def set_paused(
    connection: sqlite3.Connection, name: str, *, paused: bool, at: Moment
) -> Registered:
    """Pause a function, or resume it. It stays so when its app registers it again.

    Args:
        name: id or slug.

    Raises:
        Refused: there is no such function.
    """
    function = _present(connection, name)
    modified = function.paused != paused
    if modified:
        function_rows.set_paused(connection, function.endpoint.fn_id, paused=paused)
    return Registered(modified, function_rows.load_functions(connection) if modified else [])


def start_portion(
    connection: sqlite3.Connection,
    portion: Sequence[BacklogEvent],
    planned: PlannedStarts,
    at: Moment,
) -> Started:
    """Start the functions of a portion of the backlog, but for those that are not planned yet."""
    starts: list[Start] = []
    for one in portion:
        if one.event.event_id not in planned.later:
            backlog.remove(connection, one)
            starts += planned.starts.get(one.event.event_id, ())
    return save.start(connection, starts, at)


def invoke(connection: sqlite3.Connection, name: str, event: StartingEvent, at: Moment) -> Started:
    """Start one function with an event that is for it alone.

    Args:
        name: id or slug.

    Raises:
        Refused: there is no such function, or it is not started.
    """
    function = _present(connection, name)
    if function.endpoint.refused is not None:
        raise Refused(_not_started(function, function.endpoint.refused))
    content = expressions.read_event(event.body)
    started = save.start(connection, [planning.plan(function, event, content, at.now_ms)], at)
    for why, _ in started.refused:
        raise Refused(_not_started(function, why.reason), why.status)
    return started


def _present(connection: sqlite3.Connection, name: str) -> Function:
    function = function_rows.load_function(connection, name)
    if function is None:
        raise Refused(f"function: there is no function {name[:_SHOWN]!r}", HTTPStatus.NOT_FOUND)
    return function


def _not_started(function: Function, reason: str) -> str:
    return f"function: {function.endpoint.slug[:_SHOWN]!r} is not started: {reason}"


def _registered(connection: sqlite3.Connection, at: Moment, *, modified: bool) -> Registered:
    if not modified:
        return Registered(False, [])
    functions = function_rows.load_functions(connection)
    schedules.arrange(connection, functions, at)
    return Registered(True, functions)
