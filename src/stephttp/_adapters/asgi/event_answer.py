"""Events that are the answer to a first call, under ASGI: each is sent while the handler works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

from stephttp._adapters.asgi.messages import Send
from stephttp._run.event_answers import HEADERS
from stephttp._wire.http import Headers
from stephttp._wire.stream_frames import lost

_BEHIND = 64 * 1024
"""Bytes that wait for the caller, from which on handlers that await what they push are held up."""
_MOST_WAITING = 8 * 1024 * 1024
"""Bytes that may wait for it; what comes then is lost, and an event says so."""
PATIENCE = 30.0
"""Seconds in which a caller has to take something, so that it does not hold up its run forever."""
_LOST = lost("the caller reads too slowly")


class EventAnswer:
    """The answer to a caller who asked for events.

    A task sends what there is, as long as there is anything, at the pace of the caller. So handlers
    need not wait for that, and one that pushes nothing has no task.

    Args:
        send: the server's.
        own: headers of the SDK.
        dispatch: calls something on the event loop.
    """

    def __init__(
        self, send: Send, own: Headers, dispatch: Callable[[Callable[[], None]], None]
    ) -> None:
        self._send = send
        self._own = own
        self._dispatch = dispatch
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._size = self._sends = 0
        self._busy = self._begun = self._broken = self._full = False
        self._task: asyncio.Task[None] | None = None

    def put(self, event: bytes) -> None:
        """Send an event soon. May be called in any thread."""
        with self._lock:
            if self._broken or self._full:
                return
            if self._size > _MOST_WAITING:
                self._full, event = True, _LOST
            self._waiting.append(event)
            self._size += len(event)
            if self._busy:
                return
            self._busy = True
        self._dispatch(self._start)

    def catch_up(self) -> Awaitable[None] | None:
        """Return what to wait for until the caller has taken most of it; `None`: nothing."""
        return self._until_sent() if self._size > _BEHIND and not self._broken else None

    async def finish(self, last: bytes) -> None:
        """Send what there is, then the end."""
        await self._until_sent()
        if self._broken:
            return
        self._broken = True  # nothing comes behind the end
        with suppress(Exception):  # the caller has left, and some servers say so
            await self._begin()
            await self._send({"type": "http.response.body", "body": last, "more_body": False})

    def abort(self) -> None:
        """Send nothing more."""
        self._broken = True
        if self._task is not None:
            self._task.cancel()

    async def _until_sent(self) -> None:
        while self._busy and not self._broken:
            if self._task is None:  # another thread has just asked for it
                await asyncio.sleep(0)
            else:
                sends = self._sends
                done, _ = await asyncio.wait({self._task}, timeout=PATIENCE)
                if not done and sends == self._sends:
                    self.abort()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work(), name="stephttp-events")

    async def _work(self) -> None:
        try:
            await self._begin()
            while events := self._take():
                body = b"".join(events)
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                with self._lock:
                    self._size -= len(body)
                    self._sends += 1
        except BaseException as error:
            # Only here: `_take` has let the next task begin where this one has come to its end.
            with self._lock:
                self._broken, self._busy = True, False
            if not isinstance(error, Exception):
                raise
            # Else the caller has left, and some servers say so.

    def _take(self) -> list[bytes]:
        """Return what is sent at once."""
        with self._lock:
            count = size = 0
            while count < len(self._waiting) and size < _BEHIND:
                size += len(self._waiting[count])
                count += 1
            events, self._waiting = self._waiting[:count], self._waiting[count:]
            if not events:
                self._busy, self._task = False, None
            return events

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            headers = [*HEADERS, *self._own]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
