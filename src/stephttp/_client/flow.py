"""One call of the checkpoint API with its retries and its change of keys, as a generator.

A flow yields what it needs, a `Call` or a `Pause`, and is sent the `Answer`, or has an
`APIConnectionError` thrown in. It does no I/O, so that one text serves the sync and the async
driver.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any
from weakref import WeakValueDictionary

from msgspec import Struct, field
from msgspec.structs import replace

from stephttp._wire.inline_state import FEATURES
from stephttp._wire.signatures import hash_key
from stephttp.errors import APIConnectionError, APIError, APIStatusError

ATTEMPTS = 5
FIRST_PAUSE = 0.1
MAX_PAUSE = 5.0
RETRIED_STATUSES = frozenset({408, 425, 429})


class Call(Struct, frozen=True):
    """One HTTP request to the API."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    label: str = ""
    """What errors say instead of `path`, which may hold a secret."""

    timeout: float | None = None
    """Seconds to wait for an answer; `None` is the driver's own limit."""

    @property
    def shown(self) -> str:
        """Where it goes, without secrets."""
        return self.label or self.path.partition("?")[0]

    def __str__(self) -> str:
        return f"{self.method} {self.shown}"

    def __repr__(self) -> str:
        return f"<{self}>"  # headers may hold the signing key, and logs show locals of a traceback


class Answer(Struct, frozen=True):
    """Its response. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw_headers: tuple[tuple[bytes, bytes], ...] = ()
    """The same headers, where repeated ones must stay so."""

    @property
    def features(self) -> frozenset[str]:
        """The extras that our engine announces (docs/design.md 3.8); a real server has none."""
        return frozenset(self.headers.get(FEATURES, "").replace(",", " ").split())


class Pause(Struct, frozen=True):
    """Wait so many seconds before going on."""

    seconds: float


class Invoke(Struct, frozen=True):
    """Call a function of the user's and send what it returns; if that is awaitable, its result."""

    function: Callable[..., Any]
    argument: Any


class Until(Struct, frozen=True):
    """Wait until `future` has an outcome, whatever it is; send whether it has.

    Its outcome may come from another thread.
    """

    future: Future[Any]
    timeout: float | None = None
    """Seconds; `None` waits for as long as it takes."""


class _Bearers(list[str]):
    """In the order in which they are tried. Unlike a list, it can be forgotten."""


_shared: WeakValueDictionary[tuple[str, ...], _Bearers] = WeakValueDictionary()


class Keys:
    """What a process knows of its server: the signing keys that it may take, and its extras.

    It stays with the key that worked last, until a 401. Every answer tells the extras.
    """

    @classmethod
    def shared(cls, primary: str = "", fallback: str = "") -> Keys:
        """Keys of which all of a process that use the same ones learn when one is refused."""
        keys = cls(primary, fallback)
        name = tuple(hash_key(key) if key else "" for key in (primary, fallback))
        keys._bearers = _shared.setdefault(name, keys._bearers)
        return keys

    def __init__(self, primary: str = "", fallback: str = "") -> None:
        self.features: frozenset[str] | None = None
        """The extras that the server announced (docs/design.md 3.8); `None` before it answers."""
        self.warned = False
        """Whether it was said that the server lacks what is configured."""
        self._bearers = _Bearers(hash_key(key) for key in (primary, fallback) if key)

    def __repr__(self) -> str:
        return f"<Keys: {len(self._bearers)}>"

    @property
    def bearer(self) -> str | None:
        """What goes behind `Bearer`; `None` without a key."""
        return self._bearers[0] if self._bearers else None

    def supports(self, feature: str) -> bool:
        """Whether the server is known to have an extra."""
        return self.features is not None and feature in self.features

    def learn(self, answer: Answer) -> None:
        """Note what an answer tells of the server."""
        # A proxy's own error page tells nothing of the server behind it.
        if FEATURES in answer.headers or answer.status < 500:
            self.features = answer.features

    def reject(self, bearer: str | None) -> bool:
        """`bearer` was refused; whether another one is worth trying."""
        if bearer == self.bearer:
            self._bearers.reverse()
        return self.bearer != bearer


def backoff(attempt: int, rng: random.Random) -> float:
    """Seconds to wait before `attempt` (from 1): doubling, capped, with jitter down to half."""
    ceiling = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
    return ceiling * rng.uniform(0.5, 1)


def send(
    call: Call, keys: Keys, rng: random.Random
) -> Generator[Call | Pause, Answer | None, Answer]:
    """Make `call`, five times at the most.

    Raises:
        APIConnectionError: no attempt was answered.
        APIStatusError: refused (4xx, at once), or the last attempt failed (5xx, 408, 425, 429).
    """
    error: APIError = APIConnectionError("not attempted")
    for attempt in range(ATTEMPTS):
        if attempt:
            yield Pause(backoff(attempt, rng))
        try:
            bearer = keys.bearer
            answer = yield _with_bearer(call, bearer)
            if answer is not None and answer.status == 401 and keys.reject(bearer):
                answer = yield _with_bearer(call, keys.bearer)
        except APIConnectionError as problem:
            error = problem
            continue
        assert answer is not None, "a Call is answered by an Answer"
        keys.learn(answer)
        if 200 <= answer.status < 300:
            return answer
        error = APIStatusError(
            f"{call}: the server answered {answer.status}: "
            f"{answer.body[:500].decode(errors='replace')}",
            answer.status,
            answer.body,
        )
        if answer.status < 500 and answer.status not in RETRIED_STATUSES:
            break
    raise error


def _with_bearer(call: Call, bearer: str | None) -> Call:
    if bearer is None:
        return call
    return replace(call, headers={**call.headers, "authorization": f"Bearer {bearer}"})
