"""The answer of a run that has ended, as the server keeps it (`RunResult`), also on an
Inngest server. Pure.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec
from msgspec import Struct

from stephttp._core.conversion import CONVERSIONS
from stephttp._wire.json import UNREADABLE

T = TypeVar("T")


class RunResult(Struct, frozen=True, kw_only=True):
    """What the handler of a run answered in the end.

    Attributes:
        status_code: HTTP status.
        headers: one value a name; those of a repeated header are joined by a comma.
        body: as bytes.
    """

    status_code: int
    headers: dict[str, str] = {}
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as UTF-8 text; what is not UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")

    @overload
    def json(self, type: type[T]) -> T: ...
    @overload
    def json(self, type: Any = Any) -> Any: ...
    def json(self, type: Any = Any) -> Any:
        """Decode the body as JSON.

        Args:
            type: the type to decode it into, such as a model of pydantic, by its aliases; plain
                JSON without one.

        Returns:
            The decoded body.

        Raises:
            ValueError: it is not JSON, or does not fit `type`.
            TypeError: `type` is not one that JSON can be read as.
        """
        return CONVERSIONS.reader(type)(self.body)


def read_output(output: bytes) -> RunResult:
    """Read the output of a run as an Inngest server keeps it: the op that ended it, or its data."""
    try:
        value: Any = msgspec.json.decode(output)
    except UNREADABLE:
        return RunResult(status_code=200, body=output)
    headers = {"content-type": "application/json"}
    return _answer_in(value) or RunResult(status_code=200, headers=headers, body=output)


def of_handler(output: bytes) -> RunResult | None:
    """Return the answer of a handler, if an output is that."""
    try:
        return _answer_in(msgspec.json.decode(output))
    except UNREADABLE:
        return None


def _answer_in(value: Any) -> RunResult | None:
    for part in (value.get("data") if isinstance(value, dict) else None, value):
        if not isinstance(part, dict) or type(status := part.get("status")) is not int:
            continue
        headers, body = part.get("headers") or {}, part.get("body")
        if isinstance(headers, dict) and isinstance(body, str | None):
            return RunResult(
                status_code=status,
                headers={str(name).lower(): str(text) for name, text in headers.items()},
                body=(body or "").encode("utf-8", "replace"),
            )
    return None
