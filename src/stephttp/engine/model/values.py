"""The base class of all values of this package."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import asdict

Topic = tuple[str, str]
"""The name of a channel, and of a topic in it: what listeners of a stream listen to."""


class Value(Struct, frozen=True, gc=False):
    """A value, never part of a reference cycle. Its `repr` leaves out bytes, which users sent."""

    def __repr__(self) -> str:
        shown = (f"{k}={v!r}" for k, v in asdict(self).items() if not isinstance(v, bytes))
        return f"{type(self).__name__}({', '.join(shown)})"
