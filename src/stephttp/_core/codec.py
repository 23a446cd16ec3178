"""JSON values: a step's result in, the same shape out, and errors as data.

A result is encoded once, when the step has run, and what the handler gets is decoded from those
bytes, both then and when the step is remembered: so it has the same shape each time.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from types import CodeType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from stephttp._wire.durations import MAX_WAIT
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import (
    APIStatusError,
    NonRetriableError,
    RetryAfterError,
    StepError,
    StepResultError,
    UsageError,
)

_FINAL = (NonRetriableError, StepResultError, UsageError)
"""What fails again however often it is tried."""

_MAX_CAUSES = 8
_MAX_TEXT = 16_384
"""Characters of a message that are kept, and of a traceback; its innermost frames come last."""

MAX_INPUT_BYTES = 64 * 1024
"""Of the arguments of a step that are sent with its result."""

MAX_RESULT_BYTES = 4 * 1024 * 1024 - 128 * 1024
"""A server takes 4 MiB in one checkpoint (docs/protocol.md 10); the rest is around the result."""


def _encode_other(value: Any) -> Any:
    dump = getattr(type(value), "model_dump", None)  # pydantic, without importing it
    if dump is not None:
        return dump(value, mode="json")
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__}")


def _decode_other(type_: Any, value: Any) -> Any:
    validate = getattr(type_, "model_validate", None)
    return value if validate is None else validate(value)


_encoder = msgspec.json.Encoder(enc_hook=_encode_other)
_plain_decoder = msgspec.json.Decoder()
_error_decoder = msgspec.json.Decoder(ErrorInfo)


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
    """Positional arguments of a step as a JSON array; `None` if they have no such form, or one of
    more than `MAX_INPUT_BYTES`. They are for people to look at, so a step can do without."""
    try:
        raw = _encoder.encode(args)
    except Exception:  # whatever a value's own conversion may raise
        return None
    return msgspec.Raw(raw) if len(raw) <= MAX_INPUT_BYTES else None


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


def plain(raw: bytes | msgspec.Raw) -> Any:
    """JSON as plain values: `dict`, `list`, `str`, `int`, `float`, `bool`, `None`."""
    return _plain_decoder.decode(raw)


def return_annotation(handler: Callable[..., Any]) -> Any:
    """What `handler` says it returns; `Any` when it does not say, or not in a usable way."""
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
    said, usable = _said.get(code, _UNMET)
    if said is not annotation:  # met for the first time, or a closure that says something else
        usable = _meaning(function, annotation)
        if len(_said) >= _MOST_SAID:
            _said.clear()
        if code is not None:
            _said[code] = annotation, usable
    return usable


@lru_cache(maxsize=1024)
def _usable(annotation: Any) -> Any:
    """What an annotation says of the result; `Any` for a type that has no JSON form."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        annotation = get_args(annotation)[-1]  # of Awaitable[T], Future[T], Coroutine[_, _, T]
    try:
        _decoder(annotation)
    except TypeError:
        return Any
    return annotation


_said: dict[CodeType | None, tuple[Any, Any]] = {}
"""What functions say they return, by place in the code, and what of that can be used."""
_MOST_SAID = 4096
_UNMET = (object(), Any)


def _meaning(function: Any, annotation: Any) -> Any:
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


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as data, with its traceback, and its cause in the same form."""
    try:
        stack = "".join(traceback.format_exception(error))
    except Exception:  # formatting calls code of the exception's own
        stack = ""
    info = _error_info(error, depth=0)
    info.stack = _writable(stack[-_MAX_TEXT:])
    if isinstance(error, _FINAL) or _refused(error):
        info.no_retry = True
    return info


def _error_info(error: BaseException, depth: int) -> ErrorInfo:
    info = ErrorInfo(type(error).__name__, _message(error))
    if isinstance(error, StepError):
        info = ErrorInfo(_writable(error.name), _writable(error.message), error.stack)
        if error.data is not None:
            info.data = _error_data(error.data)
    if error.__cause__ is not None and depth < _MAX_CAUSES:
        info.cause = msgspec.Raw(encode_struct(_error_info(error.__cause__, depth + 1)))
    return info


def _error_data(data: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(encode_result(data, "with an error"))
    except StepResultError:  # the error itself is what matters
        return msgspec.Raw(encode_struct(_message(data)))


def _refused(error: BaseException) -> bool:
    """Whether the server refused something, and would refuse it again."""
    return (
        isinstance(error, APIStatusError)
        and 400 <= error.status < 500
        and error.status not in (401, 408, 425, 429)
    )


def retry_after(error: BaseException | None, now_ns: int) -> str | None:
    """When a failed step wants to be tried again, in RFC 3339; `None` if it does not say."""
    if not isinstance(error, RetryAfterError):
        return None
    when = error.retry_after
    if isinstance(when, timedelta):
        now = datetime.fromtimestamp(now_ns / 1_000_000_000, UTC)
        when = now + max(timedelta(0), min(when, MAX_WAIT))
    text = when.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def describe(error: BaseException) -> str:
    """An exception in one line of text that can be written as UTF-8."""
    return f"{type(error).__name__}: {_message(error)}"


def _message(error: Any) -> str:
    try:
        return _writable(str(error)[:_MAX_TEXT])
    except Exception:
        return "(its text cannot be had)"


def _writable(text: str) -> str:
    """Without lone surrogates, which no encoding can write."""
    return text.encode(errors="replace").decode()


def step_error(info: ErrorInfo) -> StepError:
    """A remembered failure as the exception that the handler sees."""
    data = None if isinstance(info.data, msgspec.UnsetType) else _plain_decoder.decode(info.data)
    return StepError(info.message, info.name or "Error", info.stack, data, _cause(info.cause))


def _cause(raw: msgspec.Raw | msgspec.UnsetType) -> StepError | None:
    if isinstance(raw, msgspec.UnsetType):
        return None
    try:
        return step_error(_error_decoder.decode(raw))
    except msgspec.ValidationError:  # of another SDK, which may put anything here
        value = _plain_decoder.decode(raw)
        return None if value is None else StepError(str(value))


def _type_name(value: Any) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"
