"""Values of the user's as JSON: what steps return, and what they are given.

A result is encoded once, when its step has run. The handler gets what those bytes decode to
(`annotations`), both then and when the step is remembered, so it has the same shape each time.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from stephttp.errors import StepResultError

MAX_INPUT_BYTES = 64 * 1024
"""The largest arguments of a step, in bytes of JSON, that are sent with its result."""

MAX_RESULT_BYTES = 4 * 1024 * 1024 - 128 * 1024
"""A server accepts 4 MiB in one checkpoint (docs/protocol.md 10); the rest is around the result."""


def _encode_other(value: Any) -> Any:
    dump = getattr(type(value), "model_dump", None)  # pydantic, without importing it
    if dump is not None:
        return dump(value, mode="json")
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__}")


_encoder = msgspec.json.Encoder(enc_hook=_encode_other)
_plain_decoder = msgspec.json.Decoder()


def encode_result(value: Any, step_id: str) -> bytes:
    """Encode what a step returned.

    Raises:
        StepResultError: `value`, or something in it, cannot be JSON, or is larger than a server
            takes. Names the step and the type.
    """
    try:
        raw = _encoder.encode(value)
        if b"null" in raw:  # which is also what NaN and infinity are written as
            _refuse_non_finite(msgspec.to_builtins(value, enc_hook=_encode_other))
    except Exception as error:
        raise StepResultError(
            f"step {step_id!r} returned {_type_name(value)}, which cannot be stored as JSON "
            f"({error}); return plain data, a dataclass, a msgspec.Struct or a pydantic model"
        ) from error
    if len(raw) > MAX_RESULT_BYTES:
        raise StepResultError(
            f"step {step_id!r} returned {_type_name(value)} of {len(raw)} bytes as JSON; at most "
            f"{MAX_RESULT_BYTES} can be stored, so store it elsewhere and return where it is"
        )
    return raw


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not JSON")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for inner in value:
        _refuse_non_finite(inner)


def encode_argument(value: Any, step_id: str, argument: str) -> bytes:
    """Encode what a step was given for the server.

    Raises:
        ValueError: it cannot be JSON. Names the step and the argument.
    """
    try:
        return _encoder.encode(value)
    except Exception as error:
        raise ValueError(
            f"step {step_id!r}: {argument} cannot be sent as JSON ({error}); use plain data, "
            "dataclasses, msgspec.Struct or pydantic models"
        ) from error


def encode_input(args: tuple[Any, ...]) -> msgspec.Raw | None:
    """Encode positional arguments of a step as a JSON array.

    Returns:
        The array; `None` if the arguments have no JSON form, or one of more than
        `MAX_INPUT_BYTES`. People look at them, so a step can do without.
    """
    try:
        raw = _encoder.encode(args)
    except Exception:  # whatever a value's own conversion may raise
        return None
    return msgspec.Raw(raw) if len(raw) <= MAX_INPUT_BYTES else None


def decode_plain(raw: bytes | msgspec.Raw) -> Any:
    """Decode JSON into plain values: `dict`, `list`, `str`, `int`, `float`, `bool`, `None`."""
    return _plain_decoder.decode(raw)


def _type_name(value: Any) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"
