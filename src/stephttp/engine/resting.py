"""Calls that the engine had made before it was killed: it leaves them alone for a moment, because a
process may still be at work on them.

An engine that was killed has forgotten which calls it had made. The process that got such a call
begins steps without a question for a while, so it is left alone for as long (docs/design.md 3.13).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from stephttp._wire.stored_state import RESENT_AFTER
from stephttp.engine.live.slots import Gates, TaskKey
from stephttp.engine.model.clock import Clock
from stephttp.engine.store.store import Store
from stephttp.engine.work import due


class Resting:
    """Calls that are not repeated yet. `begin` it once."""

    def __init__(self, store: Store, clock: Clock, gates: Gates) -> None:
        self._store = store
        self._gates = gates
        self._clock = clock
        self._since_ms = 0
        self.until: float | None = None
        """When nothing rests any more, by the clock that never jumps; `None` if that is over."""
        self._keys: Collection[TaskKey] | None = ()
        self.due_ms: int | None = None
        """When to look at what rests; `None` if nothing does (any more)."""

    def begin(self, since_ms: int) -> None:
        """Note that the engine starts to call."""
        self._since_ms, self._keys = since_ms, None
        self.until = self._clock.monotonic() + RESENT_AFTER

    async def keys(self) -> Collection[TaskKey]:
        """Return what is left alone now."""
        if self.until is None or self._clock.monotonic() >= self.until:
            self.until, self._keys = None, ()
            self._gates.rest({})
        elif self._keys is None:
            unit = partial(due.due_before, since_ms=self._since_ms)
            self._keys = await self._store.read(unit)
            gates = partial(due.gates_before, since_ms=self._since_ms)
            self._gates.rest(await self._store.read(gates))
        self.due_ms = self._since_ms + round(RESENT_AFTER * 1000) if self._keys else None
        return self._keys or ()
