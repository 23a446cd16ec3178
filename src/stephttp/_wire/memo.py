"""What the server remembers of a run: `GET /v0/runs/{run}/actions` (docs/protocol.md 5.3)."""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec import Raw

from stephttp._wire.opcodes import ErrorInfo


class MemoKind(Enum):
    VALUE = "value"
    ERROR = "error"
    INPUT = "input"
    """The step is to run with these arguments (a JSON array), which were edited for a rerun."""
    PENDING = "pending"
    """Known to the server and not resolved yet. Only the stephttp engine says so, when asked."""


class Memo(msgspec.Struct, frozen=True):
    """One remembered step: its raw JSON value, or its error."""

    kind: MemoKind
    raw: Raw = Raw(b"null")
    error: ErrorInfo | None = None


_memos = msgspec.json.Decoder(dict[str, Raw])
_fields = msgspec.json.Decoder(dict[str, Raw])
_error = msgspec.json.Decoder(ErrorInfo)
_PENDING = Memo(MemoKind.PENDING)


def decode_memos(body: bytes) -> dict[str, Raw]:
    """Split the answer into one raw entry per step hash.

    Raises:
        ValueError: `body` is not a JSON object.
    """
    try:
        return _memos.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the server's memo of the run is not a JSON object: {error}") from error


def read_memo(entry: Raw) -> Memo:
    """Interpret one entry. An object with the one key `data` is a value, with `error` a failure,
    with `input` a list of arguments; anything else is itself the value."""
    try:
        fields = _fields.decode(entry)
    except msgspec.ValidationError:
        return Memo(MemoKind.VALUE, entry)  # null, a number, a list: the value itself
    keys = fields.keys()
    if keys == {"data"}:
        return Memo(MemoKind.VALUE, fields["data"])
    if keys == {"error"}:
        try:
            return Memo(MemoKind.ERROR, error=_error.decode(fields["error"]))
        except msgspec.ValidationError:  # an error that is only a text
            text = bytes(fields["error"]).decode()
            return Memo(MemoKind.ERROR, error=ErrorInfo(name="Error", message=text))
    if keys == {"input"} and bytes(fields["input"]).startswith(b"["):
        return Memo(MemoKind.INPUT, fields["input"])
    if keys == {"pending"}:
        return _PENDING
    return Memo(MemoKind.VALUE, entry)
