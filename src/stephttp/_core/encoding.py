"""Results and arguments of steps as JSON: what a step may return, and the error for what it may not
(NaN, secrets, unknown types).

A result is encoded once, when its step has run. The handler gets what those bytes decode to, as the
function's annotation says, both then and when the step is remembered. So it has the same shape each
time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn

import msgspec

from stephttp._core.annotations import (
    annotated_conversion,
    annotations_of,
    conversion_of,
    function_of,
    owner_of,
)
from stephttp._core.conversion import CONVERSIONS, PLAIN, Conversion
from stephttp._core.unions import Choice
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp.errors import StepResultError

MAX_INPUT_BYTES = 64 * 1024
"""The largest arguments of a step, in bytes of JSON, that are sent with its result."""

MAX_RESULT_BYTES = 4 * 1024 * 1024 - 128 * 1024
"""A server accepts 4 MiB in one checkpoint (docs/protocol.md 10); the rest is around the result."""


_plain_decoder = msgspec.json.Decoder()
_choices_decoder = msgspec.json.Decoder(list[Choice])


def encode_result(value: Any, step_id: str) -> bytes:
    """Encode what a step returned.

    Raises:
        StepResultError: `value`, or something in it, cannot be JSON, or is larger than a server
            takes. Names the step and the type.
    """
    try:
        raw = CONVERSIONS.encode(value)
        # With `in` it takes eight times the instructions.
        if raw.find(b"null") >= 0:  # which is also what NaN and infinity are written as
            _refuse_non_finite(CONVERSIONS.builtins(value))
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


def encode_finite(value: Any) -> bytes:
    """Encode a value as JSON, without a limit. Raises an exception of any kind if it has no JSON
    form, as NaN and infinity have none."""
    raw = CONVERSIONS.encode(value)
    if raw.find(b"null") >= 0:
        _refuse_non_finite(CONVERSIONS.builtins(value))
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


def encode_argument(
    value: Any, step_id: str, argument: str, most: int | None = MAX_RESULT_BYTES
) -> bytes:
    """Encode what a step was given for the server.

    Args:
        most: bytes of JSON; `None` if another limit holds.

    Raises:
        ValueError: it cannot be JSON, or is larger than a server takes. Names the step and the
            argument.
    """
    return encode_value(value, f"step {step_id!r}: {argument}", most)


def encode_value(value: Any, what: str, most: int | None) -> bytes:
    """Encode a value for the server.

    Args:
        what: begins the message of an error.
        most: bytes of JSON; `None` if another limit holds.

    Raises:
        ValueError: it cannot be JSON, or is larger.
    """
    try:
        raw = encode_finite(value)
    except Exception as error:
        raise ValueError(
            f"{what} cannot be sent as JSON ({error}); use plain data, "
            "dataclasses, msgspec.Struct or pydantic models"
        ) from error
    if most is not None and len(raw) > most:
        raise ValueError(
            f"{what} has {len(raw)} bytes as JSON; at most {most} can be sent, so send where it is"
        )
    return raw


def encode_input(args: tuple[Any, ...]) -> msgspec.Raw | None:
    """Encode positional arguments of a step as a JSON array.

    Returns:
        The array; `None` if the arguments have no JSON form, or one of more than
        `MAX_INPUT_BYTES`. People look at them, so a step can do without.
    """
    try:
        raw = CONVERSIONS.encode(args)
    except Exception:  # whatever a value's own conversion may raise
        return None
    return msgspec.Raw(raw) if len(raw) <= MAX_INPUT_BYTES else None


def decode_plain(raw: bytes | msgspec.Raw) -> Any:
    """Decode JSON into plain values: `dict`, `list`, `str`, `int`, `float`, `bool`, `None`."""
    return _plain_decoder.decode(raw)


def _type_name(value: Any) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"


def refuse_result(conversion: Conversion, step_id: str) -> NoReturn:
    """Refuse a step whose result could not be stored, before its body runs.

    Raises:
        StepResultError: names step and type.
    """
    raise StepResultError(f"the result of step {step_id!r}: {conversion.refusal}")


def choose_types(
    value: Any, decoded: Any, raw: bytes, conversion: Conversion, step_id: str
) -> tuple[Any, bytes | None]:
    """Give `decoded` the types that a step returned, where its JSON leaves them open.

    Returns:
        What the handler gets, and what is kept beside the JSON; see `unions`.

    Raises:
        StepResultError: JSON does not tell what was in a set.
    """
    kept = conversion.choices(value, decoded, CONVERSIONS)
    if not kept:
        return decoded, None
    decoded = conversion.apply(decoded, decode_plain(raw), kept, CONVERSIONS)
    if any(one.members for one in kept) and value != decoded:
        left = conversion.choices(value, decoded, CONVERSIONS)
        if any(one.members for one in left):
            raise StepResultError(
                f"step {step_id!r} returned {_type_name(value)} with a set, of whose members JSON "
                f"does not tell which types of {conversion.annotation!r} they are; return a list"
            )
    return decoded, encode_struct(kept)


_NOT_GIVEN: Any = object()


def decode_result(
    raw: bytes | msgspec.Raw,
    conversion: Conversion,
    step_id: str,
    kept: Any = None,
    returned: Any = _NOT_GIVEN,
) -> Any:
    """Decode a stored result.

    Args:
        kept: what is kept beside it.
        returned: what the step has just returned, for an error to name it.

    Raises:
        StepResultError: the stored value does not fit the annotation.
    """
    try:
        try:
            decode = conversion.decode  # called as an attribute, it takes more instructions
            decoded = decode(raw)
        except msgspec.ValidationError as error:
            if "got `bool`" not in str(error):
                raise
            try:
                decoded = CONVERSIONS.read_truth_as_number(raw, conversion.annotation)
            except msgspec.ValidationError:
                raise error from None
    except Exception as error:  # a model's own validation may raise anything
        if returned is _NOT_GIVEN:
            what, fix = f"the result of step {step_id!r} does not fit", ""
        else:
            what = f"step {step_id!r} returned {_type_name(returned)}, which does not fit"
            fix = "; return a value of that type, or annotate the function with what it returns"
        raise StepResultError(
            f"{what} its declared type {conversion.annotation!r}: {error}{fix}"
        ) from error
    if kept is None:
        return decoded
    try:
        stored = _choices_decoder.decode(kept)
    except UNREADABLE:  # another version's
        return decoded
    return conversion.apply(decoded, decode_plain(raw), stored, CONVERSIONS)


def result_conversion(handler: Callable[..., Any]) -> Conversion:
    """Return the conversion into what `handler` is annotated to return.

    The annotation is understood once for a piece of code, and not in each step.
    """
    code = getattr(handler, "__code__", None)
    if code is not None:
        try:
            given = handler.__annotations__
        except NameError:  # evaluated just now, since Python 3.14
            given = annotations_of(handler)
        _, annotated, conversion = _seen.get(id(code), _UNSEEN)
        if annotated is given.get("return", PLAIN):
            return conversion
    function = function_of(handler)
    if isinstance(function, type):
        return conversion_of(function, function.__qualname__)
    annotations = annotations_of(function)
    if "return" not in annotations:
        return PLAIN
    owner = owner_of(handler)
    conversion, lasts = annotated_conversion(function, annotations["return"], owner)
    # What `Self` is depends on more than the code. A closure may have another annotation than the
    # one made before it.
    if code is not None and lasts:
        if len(_seen) >= _MOST_SEEN:
            _seen.clear()
        _seen[id(code)] = code, annotations["return"], conversion
    return conversion


_seen: dict[int, tuple[CodeType | None, Any, Conversion]] = {}
"""Return annotations by the identity of code, which an entry keeps alive, each with the conversion
that is made of it. The hash of code is made of all its parts, each time."""
_MOST_SEEN = 4096
_UNSEEN: tuple[CodeType | None, Any, Conversion] = (None, PLAIN, PLAIN)
"""Code that has not been seen, as if of a function without an annotation: its second part stands
for a missing one above."""
