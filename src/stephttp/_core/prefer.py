"""The `Prefer` request header (RFC 7240), as far as it is about waiting."""

from __future__ import annotations

import re

from msgspec import Struct

from stephttp._wire.http import TOKEN_CHARACTER, Headers

_QUOTED = r'"(?P<quoted>(?:[^"\\]|\\.)*)"'
_VALUE = rf'\s*=\s*(?:{_QUOTED}|(?P<bare>[^\s",;]*))'
_PARAMETERS = r'\s*;[^,"]*(?:"(?:[^"\\]|\\.)*"[^,"]*)*'
_PREFERENCE = re.compile(
    rf"[,\s]*(?P<name>{TOKEN_CHARACTER}+)(?:{_VALUE})?(?:{_PARAMETERS})?\s*(?:,|$)"
)

MAX_WAIT = 300
"""Seconds; few connections survive a longer wait."""


class Prefer(Struct, frozen=True):
    """The preferences of a caller.

    Attributes:
        respond_async: answer 202 rather than let the caller wait.
        wait: seconds that the caller is willing to wait; `None` if it does not say.
    """

    respond_async: bool = False
    wait: int | None = None

    @property
    def applied(self) -> bytes:
        """The value of `Preference-Applied`."""
        parts = ["respond-async"] if self.respond_async else []
        return ", ".join(parts + ([] if self.wait is None else [f"wait={self.wait}"])).encode()


def read_prefer(headers: Headers) -> Prefer:
    """Read all `Prefer` headers; of a preference that is given twice the first one counts."""
    text = ", ".join(value.decode("latin-1") for name, value in headers if name == b"prefer")
    found: dict[str, str] = {}
    position = 0
    while match := _PREFERENCE.match(text, position):
        found.setdefault(match["name"].lower(), match["quoted"] or match["bare"] or "")
        position = match.end()
    wait = found.get("wait", "")
    seconds = min(int(wait), MAX_WAIT) if re.fullmatch(r"[0-9]{1,9}", wait) else None
    return Prefer("respond-async" in found, seconds)
