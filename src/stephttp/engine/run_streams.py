"""The streams of runs (`stream.push`) in the engine: takes in what handlers push, and hands
it to those who follow, now or later.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from random import Random

from stephttp.engine.live.stream_listeners import StreamListeners, Wake
from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.settings import Settings
from stephttp.engine.model.stream_state import Arrival, Kept, StreamEnd, StreamPart
from stephttp.engine.store.store import Store, StoreClosedError
from stephttp.engine.work import stream_parts

log = logging.getLogger(__name__)

_FORGOTTEN = 20
"""How many streams one unit of work forgets."""
_GRACE_MS = 1_000
"""For which the SDK that writes the end itself may still write it, after the run has ended."""
_LONGEST_GRACE_MS = 5_000
"""The same, while it is writing."""
_WRITES_ITSELF = "inngest-js"
"""The SDK that does, and writes what begins each call as well. The answer of the handler in the end
is whole, while that which it gives the engine has no status and no headers (docs/protocol.md
8.4)."""


class RunStreams:
    """Keeps what handlers push, and hands it to all who follow a run.

    Each of those who follow a run does this:

        with streams.listening(run_id) as wake:
            while True:
                wake.clear()
                part = await streams.read(run_id, after)  # frames, with their numbers
                after = part.last
                ...  # send them, as fast as the client reads
                if part.more:
                    continue
                if part.ended or streams.released:
                    break  # send `end`, or let the client come again
                await clock.wait_for(seconds, wake)

    Args:
        listeners: those who follow.
    """

    def __init__(
        self,
        store: Store,
        listeners: StreamListeners,
        clock: Clock,
        rng: Random,
        settings: Settings,
    ) -> None:
        self._store = store
        self._listeners = listeners
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._writing: Counter[str] = Counter()
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to forget, now and then, the streams of runs that ended some time ago."""
        self._sweeping = asyncio.create_task(self._sweep_again(), name="stephttp-streams")

    async def stop(self) -> None:
        """Stop that."""
        task, self._sweeping = self._sweeping, None
        await cancelled(task)

    async def sweep(self) -> int:
        """Forget the streams of runs that ended some time ago, and return how many."""
        before_ms = self._clock.now_ms() - round(self._settings.stream_retain * 1000)
        unit = partial(stream_parts.forget, before_ms=before_ms, limit=_FORGOTTEN)
        total = 0
        while count := await self._store.write(unit):
            total += count
        return total

    async def append(self, arrival: Arrival) -> Kept:
        """Keep frames that arrive, and wake those who follow; return what was kept.

        Raises:
            Refused: another call of the handler writes now, or the stream was forgotten.
        """
        at = Moment(self._clock.now_ms(), self._rng, self._settings)
        unit = partial(stream_parts.append, arrival=arrival, at=at)
        return await self._store.write(
            unit, lambda _: self._listeners.wake(arrival.run_id, run_changed=False)
        )

    async def read(self, run_id: str, after: int = 0) -> StreamPart:
        """Return the frames behind a number, as many as are sent at once."""
        return await self._store.read(partial(stream_parts.read, run_id=run_id, after=after))

    async def begins_itself(self, run_id: str) -> bool:
        """Say whether the SDK of a run writes itself what begins its stream."""
        return (await self.read(run_id)).sdk.startswith(_WRITES_ITSELF)

    async def end(self, run_id: str, after: int) -> bytes | None:
        """Return the data (JSON) of the event that ends the stream of a run.

        Args:
            after: the number of the last frame that was read.

        Returns:
            `None` if the run has not ended, or there are frames behind that number by now.
        """
        look = partial(stream_parts.end, run_id=run_id)
        end = await self._store.read(look)
        while end is not None and (pause_ms := self._grace_ms(run_id, end)) > 0:
            with self.listening(run_id) as wake:
                await self._clock.wait_for(pause_ms / 1000, wake)
            end = await self._store.read(look)
        if end is None or (await self.read(run_id, after)).frames:
            return None
        return end.data

    def listening(self, run_id: str) -> AbstractContextManager[Wake]:
        """Provide an event that is set when a stream, or its run, changes, or the engine stops."""
        return self._listeners.listening(run_id)

    @contextmanager
    def writing(self, run_id: str) -> Generator[None]:
        """Note that a request brings frames for a run while the block runs."""
        self._writing[run_id] += 1
        try:
            yield
        finally:
            self._writing[run_id] -= 1
            if not self._writing[run_id]:
                del self._writing[run_id]
            self._listeners.wake(run_id)

    @property
    def released(self) -> bool:
        """Whether the engine stops, so that streams end here."""
        return self._listeners.released

    def release(self) -> None:
        """Wake all who follow a run, because the engine stops."""
        self._listeners.release()

    def __len__(self) -> int:
        """Return how many follow a run."""
        return len(self._listeners)

    async def _sweep_again(self) -> None:
        while True:
            try:
                await self.sweep()
            except StoreClosedError:
                return
            except Exception as error:
                log_event(
                    log, logging.ERROR, "streams.failed", "trying again later", error=str(error)
                )
            await self._clock.wait_for(self._settings.sweep_interval)

    def _grace_ms(self, run_id: str, end: StreamEnd) -> int:
        """Return for how long the SDK may still write the end."""
        if end.certain or self.released or not end.sdk.startswith(_WRITES_ITSELF):
            return 0
        longest = _LONGEST_GRACE_MS if run_id in self._writing else _GRACE_MS
        return end.ended_ms + longest - self._clock.now_ms()
