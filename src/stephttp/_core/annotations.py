"""Annotations of functions, as conversions: the return type of a step's function, and its
arguments when an input is edited.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import chain
from typing import (
    Any,
    ForwardRef,
    LiteralString,
    Never,
    NoReturn,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from stephttp._core.conversion import CONVERSIONS, PLAIN, Conversion
from stephttp._core.reach import arguments_of, filled, with_parts
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


def annotated_conversion(function: Any, annotation: Any, owner: Any) -> tuple[Conversion, bool]:
    """Return the conversion into what a function is annotated to return, and whether that is the
    same for all owners.

    Args:
        owner: the class whose method it is; `None` without one.
    """
    if _has_text(annotation):
        annotation = _evaluated(function, None, annotation)
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        annotation = get_args(annotation)[-1]  # of Awaitable[T], Future[T], Coroutine[_, _, T]
    annotation = _meant(annotation)
    owned = annotation if owner is None else _owned(annotation, owner, function)
    return conversion_of(owned, function.__qualname__), owned is annotation


def _meant(annotation: Any) -> Any:
    """Return an annotation without what is for type checkers alone."""
    for special, meaning in _MEANINGS:
        if annotation is special:
            return meaning
    return with_parts(annotation, _meant)


def _owned(annotation: Any, owner: Any, function: Any) -> Any:
    """Return the annotation of a method with what `Self` and the type variables of generic classes
    stand for in its owner."""
    given: dict[Any, Any] | None = None

    def owned(one: Any) -> Any:
        nonlocal given
        if one is Self:
            return owner
        if isinstance(one, TypeVar):
            if given is None:
                given = _given(owner, _defining(owner, function), {}) or {}
            return given.get(one, one)
        return with_parts(one, owned)

    return owned(annotation)


def _defining(owner: Any, function: Any) -> Any:
    """Return the class in whose body a method of `owner` is written; `None` if it is elsewhere."""
    for cls in (get_origin(owner) or owner).__mro__:
        found = vars(cls).get(function.__name__)
        if getattr(found, "__func__", found) is function:
            return cls
    return None


def _given(base: Any, target: Any, outer: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """Return what the type variables of the class `target` stand for in `base`, of which it is a
    base; `None` if it is not.

    Args:
        outer: the same of the class that has the base.
    """
    cls = get_origin(base) or base
    given = {one: filled(argument, outer) for one, argument in arguments_of(base).items()}
    if cls is target:
        return given
    for further in vars(cls).get("__orig_bases__", ()):
        if (found := _given(further, target, given)) is not None:
            return found
    return None


def _has_text(annotation: Any) -> bool:
    """Return whether an annotation, or a part of it, is text, which may have to be evaluated."""
    if isinstance(annotation, str | ForwardRef):
        return True
    return any(map(_has_text, get_args(annotation)))


def _evaluated(function: Any, name: str | None, annotation: Any) -> Any:
    """Evaluate an annotation that has text in it; `Any` if it has a name that does not exist.

    Args:
        function: whose annotation it is; a class takes what its `__init__` takes.
        name: of the parameter; `None` for what it returns.
    """

    def only() -> None: ...

    # Of all annotations only this one: another may have a name that does not exist.
    only.__annotations__ = {"this": annotation}
    try:
        names = _names_for(function, name, annotation)
        return get_type_hints(only, names, include_extras=True)["this"]
    except NameError as error:
        _warn(function.__qualname__, f"{error.name!r}")
        return Any
    except Exception:  # whatever evaluating it may raise
        _warn(function.__qualname__, repr(annotation))
        return Any


def _names_for(function: Any, name: Any, annotation: Any) -> dict[str, Any]:
    """Return the global names of the module in which an annotation is written."""
    if not isinstance(function, type):
        names: dict[str, Any] = inspect.unwrap(function).__globals__
        return names
    bases = function.__mro__
    # What a dataclass or a class of attrs takes, its fields say, some of which may be inherited.
    fields = (base for base in bases if annotations_of(base).get(name) == annotation)
    made = (base for base in bases if not {"__init__", "__new__"}.isdisjoint(vars(base)))
    return vars(sys.modules[next(chain(fields, made)).__module__])


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
    annotation, function, owner = parameter.annotation, function_of(handler), owner_of(handler)
    if _has_text(annotation):
        annotation = _evaluated(function, parameter.name, annotation)
    if annotation is inspect.Parameter.empty:
        return PLAIN
    annotation = _meant(annotation)
    return CONVERSIONS.of(annotation if owner is None else _owned(annotation, owner, function))


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
    if isinstance(bound, type) or bound is None:
        return bound
    return getattr(bound, "__orig_class__", type(bound))  # the first: of a generic class


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
