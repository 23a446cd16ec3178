"""Asks the server for the result of a run, for the caller of `result_path`, and is patient while
the server is away.

Only the result is an answer for a caller, or a refusal of the server: that may be away for a while,
and something between may say so in its own words (docs/design.md 3.18).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum, auto

from stephttp._client.api_calls import SDK, output_path
from stephttp._client.flow import APICall, Keys, Pause
from stephttp._client.server_marks import SERVER_KIND
from stephttp._wire.http import MAX_WAIT
from stephttp._wire.result_address import MARK, PENDING, STOPPING
from stephttp._wire.stored_state import FEATURES
from stephttp.errors import APIConnectionError, APITimeoutError

_SLACK = 1.0
"""Seconds that an answer may be late."""

_SILENCE = 40.0
"""Seconds without an event; those who follow get a comment every 15."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_AWAY = frozenset({502, 503, 504})
"""What a proxy says whose server is away."""


_EMPTY_FOR = 2.0
"""Seconds for which a real server may give an empty result before it has stored the right one."""
_BRIEFLY = 0.05
_OF_AN_ERROR = b'{"error"'
_NOT_ENDED = b'{"status":"running","message":"run did not end'


class Outcome(Enum):
    """What there is for the caller."""

    RESULT = auto()
    """This answer: the handler's, or a refusal of the server."""
    NOT_YET = auto()
    """No result in the time that the caller is held."""
    UNSURE = auto()
    """This answer of a real server may stand for something else; see `second_look`."""


class Asking:
    """One wait for the result of a run. Make its `call`, and report what came of it, until that is
    an `Outcome`; a `Pause` comes before the next call.

    Args:
        keys: what is known of the server.
        run_id, token: open the result.
        seconds: how long the caller is held.
        now: a clock, in seconds.
        events: what asks for the stream of the run, behind the token.
        asks: further headers, of a caller who asks for something else than the result alone.
        follows: the answer may be events, which come for longer than the caller is held.
    """

    def __init__(
        self,
        keys: Keys,
        run_id: str,
        token: str,
        seconds: float,
        now: Callable[[], float],
        events: str = "",
        *,
        asks: Mapping[str, str] | None = None,
        follows: bool = False,
    ) -> None:
        self._keys = keys
        self._path = output_path(run_id, token) + events
        self._now = now
        self._end = now() + min(seconds, MAX_WAIT)
        self._pause = _FIRST_PAUSE
        self._asks = asks or {}
        self._follows = follows
        self._empty_until: float | None = None
        """When an empty result is no longer believed to become the right one."""

    def call(self) -> APICall:
        """Return the call to make next."""
        left = max(0.0, self._end - self._now())
        # The body is passed on as it is, and any caller can read this. Our engine shows results to
        # browsers in a sandbox, but not to an SDK; and it limits the rate of strangers only.
        headers = {
            "accept-encoding": "identity",
            "x-inngest-sdk": SDK,
            "prefer": f"wait={math.ceil(left)}",
            **self._asks,
        }
        if self._follows:
            del headers["prefer"]
        if self._keys.bearer is not None:
            headers["authorization"] = f"Bearer {self._keys.bearer}"
        return APICall(
            "GET", self._path, None, headers, timeout=_SILENCE if self._follows else left + _SLACK
        )

    def read(self, status: int, headers: Mapping[str, str], first: bytes) -> Outcome | Pause:
        """Say what an answer is.

        Args:
            status, headers: of the answer; names are lower case.
            first: the first part of its body; empty if it has none.
        """
        if FEATURES in headers:
            self._keys.learn(frozenset(headers[FEATURES].replace(",", " ").split()))
            return self._of_our_engine(status, headers.get(MARK))
        if self._keys.is_foreign(status, headers, empty=not first):
            return self.failed()
        if status in _AWAY and SERVER_KIND not in headers:
            return self.failed()
        return self._of_real_server(first) if status == 200 else Outcome.RESULT

    def failed(self, error: APIConnectionError | None = None) -> Outcome | Pause:
        """Say what to do when there was no answer of the server.

        Args:
            error: why, if there was no answer at all.
        """
        left = self._end - self._now()
        if left <= 0 or isinstance(error, APITimeoutError):
            return Outcome.NOT_YET
        pause = min(self._pause, left)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return Pause(pause)

    def _of_our_engine(self, status: int, mark: str | None) -> Outcome | Pause:
        if mark == PENDING:
            return Outcome.NOT_YET
        if mark == STOPPING or (mark is None and (status == 429 or status >= 500)):
            return self.failed()
        return Outcome.RESULT

    def _of_real_server(self, first: bytes) -> Outcome | Pause:
        """Say what its 200 is: it answers so as soon as a run has ended, whatever it has of it
        (docs/protocol.md 13.10)."""
        if not first:
            now = self._now()
            if self._empty_until is None:
                self._empty_until = min(now + _EMPTY_FOR, self._end)
            left = self._empty_until - now
            return Pause(min(_BRIEFLY, left)) if left > 0 else Outcome.UNSURE
        if first.startswith(_NOT_ENDED):
            return Outcome.NOT_YET
        return Outcome.UNSURE if first.startswith(_OF_AN_ERROR) else Outcome.RESULT
