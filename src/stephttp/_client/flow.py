"""What flows ask their driver for, and what they get.

A flow is a generator that does no I/O. It yields what it needs, and is sent what came of it, or has
the error thrown in. So one text serves the event loop and threads (`drivers`).

    yields     is sent
    Call       the `Answer`; an `APIConnectionError` is thrown in where there is none
    Pause      nothing
    Invoke     what the user's function returned
    Until      whether the future has an outcome
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

from msgspec import Struct, field

from stephttp._wire.inline_state import FEATURES

T = TypeVar("T")


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


Flow = Generator[Call | Pause | Invoke | Until, Any, T]
