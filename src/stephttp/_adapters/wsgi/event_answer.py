"""Events that are the answer to a first call, under WSGI: each is sent while the handler works."""

from __future__ import annotations

import threading

from stephttp._adapters.wsgi.messages import StartResponse, Write, status_line
from stephttp._run.event_answers import HEADERS
from stephttp._wire.http import Headers, text_headers


class EventAnswer:
    """The answer to a caller who asked for events.

    A WSGI handler works in the server's thread, before that gets a body to iterate over. So events
    go through `write`, which sends before it returns (PEP 3333).

    Args:
        start_response: the server's.
        own: headers of the SDK.
    """

    def __init__(self, start_response: StartResponse, own: Headers) -> None:
        self._start_response = start_response
        self._own = own
        self._lock = threading.Lock()
        self._write: Write | None = None
        self._broken = False

    def put(self, event: bytes) -> None:
        """Send an event now. May be called in any thread."""
        with self._lock:
            if self._broken:
                return
            try:
                self._begun()(event)
            except Exception:  # the caller has left
                self._broken = True

    def catch_up(self) -> None:
        """Return nothing to wait for: what was pushed is sent."""

    def finish(self, last: bytes) -> list[bytes]:
        """Return the end, for the server to send it."""
        with self._lock:
            self._begun()
            self._broken = True  # nothing comes behind the end
        return [last]

    def _begun(self) -> Write:
        if self._write is None:
            headers = text_headers([*HEADERS, *self._own])
            self._write = self._start_response(status_line(200), headers)
        return self._write
