"""The kinds of steps, by the ops that report them and by the form of a memo: a sleep is not
the result of a function.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from stephttp._wire.opcodes import OpCode
from stephttp._wire.stored_state import MemoKind, read_memo

KINDS: Mapping[str, str] = {
    OpCode.STEP_RUN: "run",
    OpCode.STEP_ERROR: "run",
    OpCode.STEP_FAILED: "run",
    OpCode.SLEEP: "sleep",
    OpCode.WAIT_FOR_EVENT: "wait_for_event",
    OpCode.WAIT_FOR_SIGNAL: "wait_for_signal",
    OpCode.INVOKE_FUNCTION: "invoke",
    OpCode.GATEWAY: "fetch",
    OpCode.AI_GATEWAY: "ai.infer",
}
"""The tools by the ops that report them. Others, such as `StepPlanned`, may be of any kind."""

_WITHOUT_RESULT = frozenset({"sleep", "wait_for_event", "wait_for_signal"})
"""Kinds whose memo is `null`, or may be."""
_BARE = frozenset({"sleep", "wait_for_event"})
"""Kinds whose memo is not in an object of its own, as far as it is not `null`."""
_EVENT = frozenset({"data", "id", "name", "ts"})
_fields = msgspec.json.Decoder(dict[str, Raw])


def may_be(entry: Raw, kind: str) -> bool:
    """Return whether a memo may be of a kind, as far as its form says (docs/protocol.md 5.3)."""
    memo = read_memo(entry)
    if memo.kind is not MemoKind.VALUE:
        return memo.kind is not MemoKind.ERROR or kind != "sleep"
    if memo.raw is not entry:  # in an object of its own
        return kind not in _BARE or bytes(memo.raw) == b"null"
    if bytes(entry) == b"null":
        return kind in _WITHOUT_RESULT
    return kind == "wait_for_event" or not _is_event(entry)


def _is_event(entry: Raw) -> bool:
    try:
        return _fields.decode(entry).keys() >= _EVENT
    except msgspec.ValidationError:
        return False
