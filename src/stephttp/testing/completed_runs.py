"""`always_replay`'s replay of runs that have completed in the engine of a test."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator
from contextlib import contextmanager
from functools import partial

import httpx2

from stephttp._run.runtime import Runtime
from stephttp.engine.engine import Engine
from stephttp.testing.always_replay import AlwaysReplay
from stephttp.testing.later_time import a_day_later
from stephttp.testing.replayed_call import replayed
from stephttp.testing.stored_history import history_in

_TIMES = 3
"""How often a run is replayed as a whole: what depends on chance may come out the same."""
_COMPLETED = "SELECT run_id FROM runs WHERE status = 'completed'"
_OF_THE_END = frozenset({"answer_differs", "new_step"})
"""What only the replay of a whole run shows: the calls before it had another end."""


async def replay_completed(
    always: AlwaysReplay,
    engine: Engine,
    runtimes: Collection[Runtime],
    caller: httpx2.AsyncBaseTransport,
) -> None:
    """Replay runs as a whole that have completed since this was called last.

    Args:
        always: what compares their calls.
        engine: of the test.
        runtimes: of the application's providers.
        caller: calls the application.
    """
    found = await engine.store.read(lambda connection: connection.execute(_COMPLETED).fetchall())
    for run_id in always.completed([run_id for (run_id,) in found]):
        now_ms = engine.clock.now_ms()
        history = await engine.store.read(partial(history_in, run_id=run_id, now_ms=now_ms))
        known = len(always.findings)
        replay = await replayed(history, runtimes, caller, always.again)
        for _ in range(_TIMES - 1):
            if len(always.findings) == known:
                replay = await replayed(history, runtimes, caller, always.again)
        if len(always.findings) == known:
            always.note_ends([one for one in replay.findings if one.kind in _OF_THE_END])
            with a_day_later(always.modules_of(run_id)):
                await replayed(history, runtimes, caller, always.later())
        for name, value in always.read_by(run_id):
            with _variable(name, value):
                await replayed(history, runtimes, caller, always.with_variable(name))


@contextmanager
def _variable(name: str, value: str | None) -> Generator[None]:
    """Give an environment variable another value while the block runs, of the same kind."""
    os.environ[name] = _another(value)
    try:
        yield
    finally:
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def _another(value: str | None) -> str:
    if value is None:
        return "1"
    if value.isdecimal():
        return str(int(value) + 1)
    return _OPPOSITES.get(value.lower(), f"{value}x")


_OPPOSITES = {"true": "false", "false": "true", "yes": "no", "no": "yes", "on": "off", "off": "on"}
