"""Sends what a handler pushes (the events of a run's stream) to the server, in order, beside
the handler.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from stephttp._client.api_calls import SDK
from stephttp._client.background import Job
from stephttp._client.event_loop import either
from stephttp._client.flow import APICall, Flow, Until, send
from stephttp._run.server_question import is_ours
from stephttp._wire import stream_frames
from stephttp._wire.stored_state import STREAMS_FEATURE, CallId
from stephttp.errors import APIError, APIStatusError

if TYPE_CHECKING:
    from stephttp._run.scope import RunScope

logger = logging.getLogger("stephttp")

_MOST_WAITING = 2 * 1024 * 1024
"""Bytes of events that wait to be sent."""
_BATCH = 256 * 1024
"""Bytes of one request, about. A plain server forwards 1,000 KB of one (docs/protocol.md 8.4)."""
_PATIENCE = 10.0
"""Seconds for which the end of a call waits for what is under way."""
_LOST = stream_frames.lost("the server took them too slowly")


class FrameSender:
    """The way of events from one call of a handler to the server. Thread-safe.

    One request at a time is under way, with all that came meanwhile, so that the order is kept.
    Our engine counts the events of a writer, so that a request without an answer is just repeated;
    a plain server forwards what it gets, and keeps nothing.

    Args:
        scope: of the run.
        writer: names the call.
        keeps: whether the server is known to keep streams.
        call_id: the call of the engine, where that fences those.
        held: keep the events here until `learn`: the server may never need them.
        early: only keep them until the server is known to keep streams.
    """

    def __init__(
        self,
        scope: RunScope,
        writer: str,
        *,
        keeps: bool,
        call_id: CallId | None = None,
        held: bool = False,
        early: bool = False,
    ) -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self._writer = writer
        self._call_id = call_id
        self._waiting: list[bytes] = []
        self._size = 0
        self._sent = 0
        self._busy: Future[None] | None = None
        """Done when what is under way is sent, or cannot be."""
        self._job: Job[None] | None = None
        """What sends it; `None`: that is about to start."""
        self._full = self._over = self._warned = False
        self.on_link: Callable[[str], None] | None = None
        """Called with what opens the output of the run, once the engine says it."""
        self.keeps = keeps
        """Whether the server keeps streams."""
        self.held = held
        """Whether events still stay here."""
        self._early = self._asks = early

    def put(self, event: bytes, *, mark: bool = False) -> None:
        """Send an event soon.

        Args:
            mark: it belongs to a step that has ended, and is kept in any case.
        """
        with self._lock:
            if self._over or (self._full and not mark):
                return
            if self._early:
                self._early = self.held = False
            if self._size > _MOST_WAITING and not mark:
                self._full = True
                event = _LOST
            self._waiting.append(event)
            self._size += len(event)
            if self.held or self._busy is not None:
                return
            self._busy = Future()
        self._scope.dispatch(self._begin)

    def learn(self) -> Flow[None]:
        """See whether the server keeps streams. If it does not, events stay here."""
        checkpoints = self._scope.runtime.checkpoints
        with suppress(APIError):
            yield from is_ours(checkpoints)
        self.keeps = checkpoints.keys.supports(STREAMS_FEATURE)
        self.held = not self.keeps

    def flush(self) -> Flow[None]:
        """Send all that waits, and return when that is done, cannot be, or takes too long."""
        busy = self.send_soon()
        if busy is not None:
            yield Until(busy, _PATIENCE)

    def send_in_time(self) -> Future[None] | None:
        """Send all that waits, in the background. Returns what is done when that is, or takes too
        long; `None`: there is nothing to send."""
        busy, late = self.send_soon(), Future[None]()
        if busy is None:
            return None
        timer = self._scope.runtime.background.later(_PATIENCE, lambda: late.set_result(None))
        ended = either(busy, late)
        ended.add_done_callback(lambda _: timer.cancel())
        return ended

    def is_alive(self) -> bool:
        """Return whether what is under way is being sent, or about to be."""
        return self._job is None or self._job.alive()

    def send_soon(self) -> Future[None] | None:
        """Send all that waits. Returns what is done with that; `None`: there is nothing to send."""
        with self._lock:
            busy = self._busy
            if busy is not None or self.held or not self._waiting:
                return busy
            busy = self._busy = Future()
        self._scope.dispatch(self._begin)
        return busy

    def _begin(self) -> None:
        self._job = self._scope.runtime.background.start(self._send(), "stephttp-stream")

    def _send(self) -> Flow[None]:
        busy, taken = self._busy, list[bytes]()
        try:
            if self._asks:
                self._asks = False
                yield from self.learn()
            while taken := self._take():
                yield from self._post(taken)
                with self._lock:
                    self._sent += len(taken)
        except APIError as error:
            self._failed(taken, error)
        finally:
            with self._lock:
                if self._busy is busy:
                    self._busy = None
            if busy is not None and not busy.done():
                busy.set_result(None)

    def _take(self) -> list[bytes]:
        """Return what is sent next; nothing: the next event begins again."""
        with self._lock:
            taken, size = 0, 0
            for event in () if self.held else self._waiting:
                if taken and size + len(event) > _BATCH:
                    break
                taken, size = taken + 1, size + len(event)
            batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
            self._size -= size
            if not batch and self._busy is not None:
                busy, self._busy = self._busy, None
                busy.set_result(None)
            return batch

    def _post(self, events: list[bytes]) -> Flow[None]:
        run_id, checkpoints = self._scope.run.run_id, self._scope.runtime.checkpoints
        headers = {"content-type": "application/octet-stream", "x-inngest-sdk": SDK}
        body = b"".join(events)
        if self.keeps:
            headers[stream_frames.WRITER] = f"{self._writer} {self._sent}"
            if self._call_id is not None:
                headers |= self._call_id.headers
        elif not self._sent:
            body = stream_frames.metadata(run_id) + body
        path = f"/v1/realtime/publish/tee?channel={run_id}"
        call = APICall("POST", path, body, headers)
        answer = yield from send(call, checkpoints.keys, checkpoints.rng)
        link = answer.headers.get(stream_frames.LINK)
        if link is not None and self.on_link is not None:
            self.on_link(link)
        if answer.headers.get(stream_frames.WRITER) == stream_frames.FULL:
            self._full = True
            self._warn("the engine keeps no more of its stream (--max-stream)")

    def _failed(self, events: list[bytes], error: APIError) -> None:
        """Keep what our engine could not take for the next request; other servers get it never."""
        refused = isinstance(error, APIStatusError) and error.status < 500
        with self._lock:
            if self.keeps and not refused:
                self._waiting[:0] = events
                self._size += sum(map(len, events))
            elif self.keeps:
                self._over = True  # another call writes now
                self._waiting.clear()
        if not (self.keeps and isinstance(error, APIStatusError) and error.status == 409):
            self._warn(f"what it pushes does not reach the server: {error}")

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("stephttp: run %s: %s", self._scope.run.run_id, what)
