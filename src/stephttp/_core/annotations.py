"""What functions are annotated to return and to take, as conversions."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import (
    Any,
    LiteralString,
    Never,
    NoReturn,
    Self,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from stephttp._core.conversion import CONVERSIONS, PLAIN, Conversion
from stephttp.errors import StepResultError

logger = logging.getLogger("stephttp")

_MOST_WARNED = 4096

_MEANINGS = ((NoReturn, Any), (Never, Any), (LiteralString, str))
"""Annotations that are for type checkers alone, and what they say about a value."""


def conversion_of(annotation: Any, what: str) -> Conversion:
    """Return the conversion into `annotation`, with one warning if that has names that only type
    checkers can see.

    Args:
        what: whose annotation it is, for the warning.
    """
    conversion = CONVERSIONS.of(annotation)
    if conversion.unresolved:
        _warn(what, conversion.unresolved)
    return conversion


def annotated_conversion(function: Any, annotation: Any, owner: Any) -> Conversion:
    """Return the conversion into what a function is annotated to return.

    Args:
        owner: the class that `Self` stands for.
    """
    if isinstance(annotation, str):
        annotation = _evaluated(function, "return")
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        annotation = get_args(annotation)[-1]  # of Awaitable[T], Future[T], Coroutine[_, _, T]
    if annotation is Self and owner is not None:
        annotation = owner
    for special, meaning in _MEANINGS:
        if annotation is special:
            annotation = meaning
    return conversion_of(annotation, function.__qualname__)


def _evaluated(function: Any, name: str) -> Any:
    """Evaluate an annotation that is text; `Any` if it has a name that does not exist."""

    def only() -> None: ...

    # Of all annotations only this one: another may have a name that does not exist.
    only.__annotations__ = {name: annotations_of(function)[name]}
    try:
        namespace = getattr(inspect.unwrap(function), "__globals__", {})
        return get_type_hints(only, namespace, include_extras=True)[name]
    except NameError as error:
        _warn(function.__qualname__, f"{error.name!r}")
        return Any
    except Exception:  # whatever evaluating it may raise
        _warn(function.__qualname__, repr(annotations_of(function)[name]))
        return Any


_warned: set[tuple[str, str]] = set()


def _warn(what: str, unresolved: str) -> None:
    if (what, unresolved) not in _warned and len(_warned) < _MOST_WARNED:
        _warned.add((what, unresolved))
        logger.warning(
            "stephttp: the annotation of %s has a name that does not exist at run time: %s; its "
            "value is plain JSON. Import it outside `if TYPE_CHECKING`, or pass output_type",
            what, unresolved,
        )  # fmt: skip


def decode_arguments(
    raw: bytes | msgspec.Raw, handler: Callable[..., Any], step_id: str
) -> tuple[Any, ...]:
    """Decode a JSON array into positional arguments of `handler`, as it declares them.

    Raises:
        StepResultError: they do not fit.
    """
    try:
        values = msgspec.json.decode(raw, type=list[msgspec.Raw])
        signature = inspect.signature(handler)
        bound = signature.bind_partial(*values)
        types = [
            _parameter(handler, signature.parameters[name])
            for name, value in bound.arguments.items()
            for _ in (value if isinstance(value, tuple) else (value,))
        ]
        return tuple(kind.decode(value) for kind, value in zip(types, values, strict=True))
    except Exception as error:  # a model's own validation may raise anything
        raise StepResultError(
            f"the edited input of step {step_id!r} does not fit its function: {error}"
        ) from error


def _parameter(handler: Callable[..., Any], parameter: inspect.Parameter) -> Conversion:
    """Return the conversion of one argument; plain JSON where its type cannot be used."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = _evaluated(function_of(handler), parameter.name)
    if annotation is inspect.Parameter.empty:
        return PLAIN
    return CONVERSIONS.of(annotation)


def annotations_of(function: Any) -> dict[str, Any]:
    """Return the annotations of a function; those with names that do not exist as text.

    Since Python 3.14 annotations are evaluated when they are read, and may then not be there.
    """
    try:
        return getattr(function, "__annotations__", None) or {}
    except NameError:
        annotationlib = importlib.import_module("annotationlib")
        strings: dict[str, Any] = annotationlib.get_annotations(
            function, format=annotationlib.Format.STRING
        )
        return strings


def owner_of(handler: Any) -> Any:
    """Return the class of the object, or the class, whose method `handler` is."""
    while isinstance(handler, partial):
        handler = handler.func
    bound = getattr(handler, "__self__", None)
    return bound if isinstance(bound, type) or bound is None else type(bound)


def function_of(handler: Any) -> Any:
    """Return what has the annotations of `handler`: a function, or the class itself."""
    while isinstance(handler, partial):
        handler = handler.func
    if isinstance(handler, type):
        return handler
    function = getattr(handler, "__func__", handler)
    if not hasattr(function, "__code__"):  # an object that can be called
        function = getattr(function, "__wrapped__", None) or type(handler).__call__
    return function
