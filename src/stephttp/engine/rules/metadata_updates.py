"""Metadata of runs: what is accepted, and what becomes of the values that were there. Pure.

See docs/protocol.md 4.9, and 5.1 for metadata that comes with the result of a step.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from stephttp._wire.ids import hash_step_id
from stephttp._wire.json import UNREADABLE
from stephttp._wire.opcodes import Op
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run_metadata import (
    NO_ATTEMPT,
    SCORE,
    MetadataTarget,
    MetadataUpdate,
)

LARGEST_KIND = 64 * 1024
"""Bytes of the values of one kind about one target."""
LARGEST_RUN = 1024 * 1024
"""Bytes of all metadata of a run."""
MOST_KINDS = 10_000
"""Kinds of values that a run has, each counted for every target."""
_MOST_UPDATES = 100
_LONGEST = 128
"""Bytes of a kind, and of the name of a score."""
_LONGEST_STEP = 1000
_OVERHEAD = 500
"""Bytes of an update beside its values, about."""
_MOST = 2**31
"""No attempt and no index is as large."""
_OPS = ("set", "merge")
_PREFIXES = ("userland.", "inngest.")
_HASH = re.compile(r"[0-9a-f]{40}")
_SPAN = re.compile(r"[0-9A-Za-z_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f']")
_OF_RUN = "run"


class MetadataMessage(Struct):
    """Values of one kind, as SDKs write them."""

    kind: str
    values: dict[str, Raw]
    op: str = "set"


class TargetMessage(Struct):
    """What metadata is about, as SDKs write it."""

    run_id: str
    step_id: str | None = None
    step_index: int | None = None
    step_attempt: int | None = None
    span_id: str | None = None


class _Reported(MetadataMessage):
    scope: str = "step"


def read_target(message: TargetMessage) -> MetadataTarget:
    """Return what metadata is about.

    Raises:
        Refused: it is not acceptable; the text names the field.
    """
    step_id = message.step_id or ""
    if len(step_id) > _LONGEST_STEP:
        raise Refused(f"target.step_id: must have at most {_LONGEST_STEP} characters")
    for name in ("step_index", "step_attempt"):
        number = getattr(message, name)
        if number is not None and not 0 <= number < _MOST:
            raise Refused(f"target.{name}: {number} is not a number from 0 to {_MOST - 1}")
        if number and not step_id:
            raise Refused(f"target.{name}: needs a step_id")
    if message.span_id is not None and not _SPAN.fullmatch(message.span_id):
        raise Refused("target.span_id: expected 1 to 64 characters from A-Z, a-z, 0-9, - and _")
    if step_id and not _HASH.fullmatch(step_id):
        step_id = hash_step_id(step_id, message.step_index or 0)
    attempt = NO_ATTEMPT if message.step_attempt is None or not step_id else message.step_attempt
    return MetadataTarget(step_id, attempt, message.span_id or "")


def read_updates(
    target: MetadataTarget, messages: list[MetadataMessage], field: str = "metadata"
) -> list[MetadataUpdate]:
    """Check what is to be attached to a target.

    Raises:
        Refused: it is not acceptable; the text names the field.
    """
    if not 1 <= len(messages) <= _MOST_UPDATES:
        raise Refused(f"{field}: {len(messages)}, from 1 to {_MOST_UPDATES} are accepted")
    return [_update(target, one, f"{field}[{number}]") for number, one in enumerate(messages)]


def read_reported(op: Op) -> list[MetadataUpdate]:
    """Return the metadata that came with an op. It decides nothing, so what cannot be read is left
    out rather than refused."""
    if isinstance(op.metadata, UnsetType):
        return []
    found: list[MetadataUpdate] = []
    try:
        reported = msgspec.json.decode(op.metadata, type=list[Raw] | None) or []
    except UNREADABLE:
        return []
    for raw in reported[:_MOST_UPDATES]:
        try:
            bytes(raw).decode()
            one = msgspec.json.decode(raw, type=_Reported)
            target = MetadataTarget() if one.scope == _OF_RUN else MetadataTarget(op.id)
            found.append(_update(target, one, "metadata"))
        except (*UNREADABLE, Refused):
            continue
    return found


def size_of(update: MetadataUpdate) -> int:
    """Return how many bytes an update has, about."""
    return _OVERHEAD + sum(len(name) + len(value) for name, value in update.values.items())


def merged(before: bytes | None, update: MetadataUpdate) -> bytes:
    """Return the values of a kind after an update, as a JSON object.

    Raises:
        Refused: they are too large.
    """
    values: dict[str, Raw] = {}
    if update.merges and before is not None:
        values = msgspec.json.decode(before, type=dict[str, Raw])
    values |= {name: Raw(value) for name, value in update.values.items()}
    after = msgspec.json.encode(values)
    if len(after) > LARGEST_KIND:
        raise Refused(
            f"metadata: {update.kind!r} has {len(after)} bytes, at most {LARGEST_KIND} are kept",
            413,
        )
    return after


def _update(target: MetadataTarget, message: MetadataMessage, field: str) -> MetadataUpdate:
    kind = message.kind
    if not kind.startswith(_PREFIXES) or kind in _PREFIXES or len(kind.encode()) > _LONGEST:
        raise Refused(
            f"{field}.kind: {kind[:64]!r} is not a name of up to {_LONGEST} bytes that starts with "
            f"{' or '.join(_PREFIXES)}"
        )
    if message.op not in _OPS:
        raise Refused(f"{field}.op: {message.op[:64]!r} is not one of {', '.join(_OPS)}")
    if kind == SCORE:
        for name, raw in message.values.items():
            _check_score(name, raw, f"{field}.values")
    values = {name: bytes(raw) for name, raw in message.values.items()}
    return MetadataUpdate(target, kind, message.op == "merge", values)


def _check_score(name: str, raw: Raw, field: str) -> None:
    if not name.strip() or len(name.encode()) > _LONGEST or _NOT_IN_NAMES.search(name):
        raise Refused(
            f"{field}: {name[:64]!r} is not the name of a score: 1 to {_LONGEST} bytes without "
            "control characters and single quotes"
        )
    score: Any = msgspec.json.decode(raw)
    value = score.get("value", UNSET) if isinstance(score, dict) else UNSET
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise Refused(
            f"{field}.{name[:64]}: expected an object with a number or boolean as `value`"
        )
