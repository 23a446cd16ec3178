"""Attaches metadata to runs as it arrives, also before the run does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from stephttp._wire.ids import ulid_ms
from stephttp.engine.live.early_parts import EarlyParts
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run_metadata import MetadataUpdate
from stephttp.engine.model.sdk_links import STILL_COMING_S
from stephttp.engine.rules.metadata_updates import size_of
from stephttp.engine.store.runs import unknown
from stephttp.engine.store.store import Store
from stephttp.engine.work import metadata

_MOST_EARLY = 4 * 1024 * 1024
"""Bytes of what waits for its run."""
_EARLY_MS = 600_000
"""How long it waits."""


class ArrivingMetadata:
    """Attaches metadata to runs. It lives in the engine's event loop.

    Args:
        store: the database.
        clock: the time.
        changed: called with the ids of runs whose metadata has changed.

    Attributes:
        early: metadata whose runs are not known yet.
    """

    def __init__(
        self, store: Store, clock: Clock, changed: Callable[[Sequence[str]], None]
    ) -> None:
        self.early = EarlyParts[MetadataUpdate](self._attach_early, size_of, _MOST_EARLY, _EARLY_MS)
        self._store = store
        self._clock = clock
        self._changed = changed

    async def attach(self, run_id: str, updates: Sequence[MetadataUpdate]) -> None:
        """Attach metadata to a run, or keep it until the run is reported.

        Raises:
            Refused: there is no such run, and none that old will come; or it would have too much
                metadata.
        """
        now_ms = self._clock.now_ms()
        unit = partial(metadata.attach, run_id=run_id, updates=updates, now_ms=now_ms)
        comes = abs(now_ms - ulid_ms(run_id)) < STILL_COMING_S * 1000

        def follow(known: bool) -> None:
            if known:
                self._changed([run_id])
            elif comes:
                for one in updates:
                    self.early.put(run_id, one, now_ms)

        if not await self._store.write(unit, follow) and not comes:
            raise unknown(run_id)

    async def _attach_early(self, run_id: str, updates: list[MetadataUpdate]) -> None:
        for one in updates:
            with suppress(Refused):  # as far as there is room
                await self.attach(run_id, [one])
