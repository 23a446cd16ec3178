"""One request to the server, with its keys, its retries and pauses while the server is away; as a
generator that does no I/O.

A flow is a generator that does no I/O. It yields what it needs, and is sent what came of it, or has
the error thrown in. So one text serves the event loop and threads: `carry_out` and its twin drive
it there, with what a driver does for it (`drivers`).

    yields     is sent
    APICall    the `Answer`; an `APIConnectionError` is thrown in without one
    Pause      nothing
    Invoke     what the user's function returned
    Until      whether the future has an outcome
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from msgspec import Struct, field
from msgspec.structs import replace

from stephttp._client.server_marks import describe, is_foreign, is_marked
from stephttp._wire.signatures import hash_key
from stephttp._wire.stored_state import FEATURES
from stephttp.errors import APIConnectionError, APIError, APIStatusError

T = TypeVar("T")
W = TypeVar("W")

ATTEMPTS = 5
FIRST_PAUSE = 0.1
MAX_PAUSE = 5.0
RETRIED_STATUSES = frozenset({408, 425, 429})


class APICall(Struct, frozen=True):
    """One HTTP request to the API."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    label: str = ""
    """Shown in errors instead of `path`, which may hold a secret."""

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
        """The extras that the stephttp engine announces (docs/design.md 3.8)."""
        return frozenset(self.headers.get(FEATURES, "").replace(",", " ").split())


class Pause(Struct, frozen=True):
    """Wait so many seconds before the next."""

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


class ForeignAnswerError(APIConnectionError):
    """Something between has answered in the place of the server."""


Flow = Generator[APICall | Pause | Invoke | Until, Any, T]
Calling = Generator[APICall | Pause, Answer | None, T]
"""A flow that calls the server and pauses, and does nothing else."""


async def carry_out(
    flow: Generator[W, Any, T],
    do: Callable[[W], Awaitable[Any]],
    thrown_in: type[BaseException] = Exception,
) -> T:
    """Carry out a flow to its end. Returns what it returns, and raises what it raises.

    Args:
        do: does one thing that it yields.
        thrown_in: which exceptions of `do` the flow may handle; others end it.
    """
    try:
        wanted = next(flow)
        while True:
            try:
                value = await do(wanted)
            except thrown_in as error:
                wanted = flow.throw(error)
            else:
                wanted = flow.send(value)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()


def carry_out_blocking(
    flow: Generator[W, Any, T],
    do: Callable[[W], Any],
    thrown_in: type[BaseException] = Exception,
) -> T:
    """Do the same on the calling thread."""
    try:
        wanted = next(flow)
        while True:
            try:
                value = do(wanted)
            except thrown_in as error:
                wanted = flow.throw(error)
            else:
                wanted = flow.send(value)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()


class _Bearers(list[str]):
    """Keys in the order in which they are tried. Unlike a list, it can be weakly referenced."""


_shared: WeakValueDictionary[tuple[str, ...], _Bearers] = WeakValueDictionary()


class Keys:
    """What a process knows of its server: which signing keys it accepts, and its extras.

    The key that worked last stays in use until a 401. Every answer of the server announces the
    extras; one that does not is a page of something between, from which nothing is learned.
    """

    @classmethod
    def shared(cls, primary: str = "", fallback: str = "") -> Keys:
        """Return keys that share their order with all others of this process that are the same."""
        keys = cls(primary, fallback)
        name = tuple(hash_key(key) if key else "" for key in (primary, fallback))
        keys._bearers = _shared.setdefault(name, keys._bearers)
        return keys

    def __init__(self, primary: str = "", fallback: str = "") -> None:
        self.features: frozenset[str] | None = None
        """The extras that the server announced (docs/design.md 3.8); `None` before it answers."""
        self.warned = False
        """True if a warning was logged that the server lacks what is configured."""
        self.missed: Future[None] | None = None
        """Done at the next call without an answer, where that is waited for."""
        self._bearers = _Bearers(hash_key(key) for key in (primary, fallback) if key)

    def __repr__(self) -> str:
        return f"<Keys: {len(self._bearers)}>"

    @property
    def bearer(self) -> str | None:
        """The key as it follows `Bearer`; `None` without one."""
        return self._bearers[0] if self._bearers else None

    def supports(self, feature: str) -> bool:
        """Return whether the server is known to have an extra."""
        return self.features is not None and feature in self.features

    def learn(self, features: frozenset[str]) -> None:
        """Note the extras that the server announced."""
        self.features = features

    def is_foreign(self, status: int, headers: Mapping[str, str], *, empty: bool) -> bool:
        """Return whether an answer is not the server's; see `server_marks`."""
        return is_foreign(status, headers, empty=empty, known=bool(self.features))

    def miss(self) -> None:
        """Note that a call got no answer."""
        missed, self.missed = self.missed, None
        if missed is not None:
            missed.set_result(None)

    def reject(self, bearer: str | None) -> bool:
        """Note that `bearer` was refused; return whether another one is worth trying."""
        if bearer == self.bearer:
            self._bearers.reverse()
        return self.bearer != bearer


def backoff(attempt: int, rng: random.Random) -> float:
    """Return the pause before `attempt` (from 1) in seconds: doubling, capped, jitter to half."""
    ceiling = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
    return ceiling * rng.uniform(0.5, 1)


def send(call: APICall, keys: Keys, rng: random.Random) -> Calling[Answer]:
    """Make `call`, five times at the most.

    Raises:
        APIConnectionError: no attempt was answered by the server; a proxy's page does not count.
        APIStatusError: refused (4xx, at once), or the last attempt failed (5xx, 408, 425, 429).
    """
    error: APIError = APIConnectionError("not attempted")
    damaged = 0
    for attempt in range(ATTEMPTS):
        if attempt:
            yield Pause(backoff(attempt, rng))
        try:
            bearer = keys.bearer
            answer = yield _with_bearer(call, bearer)
            refused = answer is not None and answer.status == 401 and not _foreign(answer, keys)
            if refused and keys.reject(bearer):
                answer = yield _with_bearer(call, keys.bearer)
        except APIConnectionError as problem:
            error = problem
            keys.miss()
            continue
        assert answer is not None, "an APICall is answered by an Answer"
        ours = FEATURES in answer.headers
        if not ours and _foreign(answer, keys):
            error = ForeignAnswerError(f"{call}: {describe(answer.status, answer.body)}")
            continue
        if ours or is_marked(answer.headers):
            keys.learn(answer.features)
        if 200 <= answer.status < 300:
            return answer
        error = APIStatusError(
            f"{call}: the server answered {answer.status}: "
            f"{answer.body[:500].decode(errors='replace')}",
            answer.status,
            answer.body,
        )
        if answer.status >= 500 or answer.status in RETRIED_STATUSES:
            continue
        if not (ours and "retry-after" in answer.headers):
            break
        # It arrived damaged, which says nothing of what was sent, unless it always does.
        damaged += 1
        if damaged < ATTEMPTS:
            error = APIConnectionError(str(error))
    raise error


def _foreign(answer: Answer, keys: Keys) -> bool:
    return keys.is_foreign(answer.status, answer.headers, empty=not answer.body)


def _with_bearer(call: APICall, bearer: str | None) -> APICall:
    if bearer is None:
        return call
    return replace(call, headers={**call.headers, "authorization": f"Bearer {bearer}"})
