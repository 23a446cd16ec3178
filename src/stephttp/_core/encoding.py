"""Values of the user's as JSON: what steps return, and what they are given.

A result is encoded once, when its step has run. The handler gets what those bytes decode to, as the
function's annotation says, both then and when the step is remembered. So it has the same shape each
time.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from types import CodeType
from typing import Any, get_args, get_origin, get_type_hints

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


def decode_result(raw: bytes | msgspec.Raw, annotation: Any, step_id: str) -> Any:
    """Decode a stored result into `annotation` (`Any`: plain JSON).

    Raises:
        StepResultError: the stored value does not fit the annotation.
    """
    decoder = _plain_decoder if annotation is Any else _decoder(annotation)
    try:
        return decoder.decode(raw)
    except Exception as error:  # a model's own validation may raise anything
        raise StepResultError(
            f"the result of step {step_id!r} does not fit its declared type {annotation!r}: {error}"
        ) from error


def decode_arguments(
    raw: bytes | msgspec.Raw, handler: Callable[..., Any], step_id: str
) -> tuple[Any, ...]:
    """Decode a JSON array into positional arguments of `handler`, as it declares them.

    Raises:
        StepResultError: they do not fit.
    """
    try:
        values = msgspec.json.decode(raw, type=list[msgspec.Raw])
        try:
            signature = inspect.signature(handler, eval_str=True)
        except NameError:  # an annotation that only type checkers can see
            signature = inspect.signature(handler)
        bound = signature.bind_partial(*values)
        types = [
            signature.parameters[name].annotation
            for name, value in bound.arguments.items()
            for _ in (value if isinstance(value, tuple) else (value,))
        ]
        return tuple(
            _decoder(_usable_or_any(kind)).decode(value)
            for kind, value in zip(types, values, strict=True)
        )
    except Exception as error:  # a model's own validation may raise anything
        raise StepResultError(
            f"the edited input of step {step_id!r} does not fit its function: {error}"
        ) from error


def _usable_or_any(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return Any
    return _usable(annotation)


def return_annotation(handler: Callable[..., Any]) -> Any:
    """Return what `handler` is annotated to return; `Any` without a usable annotation."""
    while isinstance(handler, partial):
        handler = handler.func
    if isinstance(handler, type):
        return handler
    function = getattr(handler, "__func__", handler)
    if not hasattr(function, "__code__"):  # an object that can be called
        function = getattr(function, "__wrapped__", None) or type(handler).__call__
    annotations = getattr(function, "__annotations__", None)
    if not annotations or "return" not in annotations:
        return Any
    annotation = annotations["return"]
    code = getattr(function, "__code__", None)
    annotated, usable = _seen.get(code, _UNSEEN)
    if annotated is not annotation:  # new, or a closure with another annotation
        usable = _resolve(function, annotation)
        if len(_seen) >= _MOST_SEEN:
            _seen.clear()
        if code is not None:
            _seen[code] = annotation, usable
    return usable


@lru_cache(maxsize=1024)
def _usable(annotation: Any) -> Any:
    """Return the type of the result under an annotation; `Any` if it has no JSON form."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        annotation = get_args(annotation)[-1]  # of Awaitable[T], Future[T], Coroutine[_, _, T]
    try:
        _decoder(annotation)
    except TypeError:
        return Any
    return annotation


_seen: dict[CodeType | None, tuple[Any, Any]] = {}
"""Return annotations by code object, each with the type that is made of it."""
_MOST_SEEN = 4096
_UNSEEN = (object(), Any)


def _resolve(function: Any, annotation: Any) -> Any:
    if isinstance(annotation, str):
        try:
            annotation = get_type_hints(function, include_extras=True)["return"]
        except Exception:  # a name that exists only where the function was defined
            return Any
    try:
        return _usable(annotation)
    except TypeError:  # unhashable
        return Any


@lru_cache(maxsize=1024)
def _decoder(annotation: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(annotation, dec_hook=_decode_other)


def _decode_other(type_: Any, value: Any) -> Any:
    validate = getattr(type_, "model_validate", None)
    return value if validate is None else validate(value)
