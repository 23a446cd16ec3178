"""Exception groups as data, and `StepErrorGroup`, which is made of that again (`except*`).

The parts of a group travel in the `data` of its error, which other SDKs leave alone. They become a
`StepErrorGroup` again, so that both `except StepError` and `except*` match. A part is of its
original class as well, if that can be found: `except* ValueError` decides part by part, and a part
that no longer matched would be raised instead of handled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import StepError, StepErrorGroup, StephttpError

_KEY = "stephttp:exceptions"
_MOST_PARTS = 256
"""Parts that are kept of a group, those of inner groups included."""
_LONGEST_TEXT = 2_048
"""Characters that are kept of the text of a part."""
_HEAP_TYPE = 1 << 9
"""The flag of classes that are not built in."""


class _Part(Struct, omit_defaults=True):
    """One exception of a group."""

    name: str
    message: str
    types: list[str] = []
    """Its class and the bases of that, as `module:qualified name`, as far as the first built-in."""
    data: Raw | UnsetType = UNSET
    cause: Raw | UnsetType = UNSET
    parts: list[_Part] = []
    """Those of an inner group."""


class _Parts(Struct):
    """`data` of the error of a group."""

    exceptions: list[_Part] = field(name=_KEY)
    message: str
    data: Raw | UnsetType = UNSET
    """What the step itself attached to the failure."""


_decoder = msgspec.json.Decoder(_Parts)


def group_data(
    group: ExceptionGroup[Any], data: Raw | UnsetType, describe: Callable[[Exception], ErrorInfo]
) -> Raw:
    """Return what is kept as the `data` of a group's error.

    Args:
        data: what the step attached to the failure.
        describe: returns another exception as data.
    """
    room = iter(range(_MOST_PARTS))
    parts = list(_parts(group, describe, room))
    return Raw(msgspec.json.encode(_Parts(parts, group.message, data)))


def _parts(
    group: ExceptionGroup[Any], describe: Callable[[Exception], ErrorInfo], room: Iterator[int]
) -> Iterator[_Part]:
    for error in group.exceptions:
        if next(room, None) is None:
            return
        if isinstance(error, ExceptionGroup):
            inner = list(_parts(error, describe, room))
            if inner:
                yield _Part(type(error).__name__, error.message, parts=inner)
        else:
            info = describe(error)
            text = info.message[:_LONGEST_TEXT]
            yield _Part(info.name, text, _types(error), info.data, info.cause)


def _types(error: Exception) -> list[str]:
    names = []
    for cls in type(error).__mro__:
        if cls is Exception or not issubclass(cls, Exception):
            break
        if issubclass(cls, StepError) or cls is StephttpError:
            continue  # the class of a part that was remembered comes after these
        names.append(f"{cls.__module__}:{cls.__qualname__}")
        if not cls.__flags__ & _HEAP_TYPE:
            break
    return names


def remembered_group(
    info: ErrorInfo, data: Any, cause: StepError | None, restore: Callable[[ErrorInfo], StepError]
) -> StepErrorGroup | None:
    """Return the exception for a remembered group; `None` for any other error.

    Args:
        data: that of `info`, decoded.
        restore: returns the exception for another error.
    """
    if not isinstance(data, dict) or _KEY not in data:
        return None
    assert isinstance(info.data, Raw)
    try:
        kept = _decoder.decode(info.data)
        parts = [_remembered(part, restore) for part in kept.exceptions]
        own = None if isinstance(kept.data, UnsetType) else msgspec.json.decode(kept.data)
        name = info.name or "ExceptionGroup"
        return StepErrorGroup(kept.message, parts, name, info.stack, own, cause)
    except (msgspec.MsgspecError, ValueError):  # another version's
        return None


def _remembered(part: _Part, restore: Callable[[ErrorInfo], StepError]) -> StepError:
    if part.parts:
        inner = [_remembered(one, restore) for one in part.parts]
        return StepErrorGroup(part.message, inner, part.name)
    error = restore(ErrorInfo(part.name, part.message, data=part.data, cause=part.cause))
    return like(_found(part.types), error)


def _found(types: list[str]) -> type[Exception] | None:
    """Return the first class that exists, in a module that was imported."""
    for name in types:
        module, _, path = name.partition(":")
        found: Any = sys.modules.get(module)
        for attribute in path.split("."):
            found = getattr(found, attribute, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None


def like(cls: Any, error: StepError) -> StepError:
    """Return `error` as one that is of the class `cls` as well, where there can be such a class."""
    if cls is None or isinstance(error, cls):
        return error
    try:
        made = _class_like(cls)()
        made.args = error.args
        made.message, made.name, made.stack = error.message, error.name, error.stack
        made.data, made.cause = error.data, error.cause
    except Exception:  # whatever a class objects to: being final, a property of the same name
        return error
    made.__cause__ = error.cause
    return made


@lru_cache(maxsize=256)
def _class_like(cls: Any) -> Callable[[], StepError]:
    """Return a class of step errors that are of the class `cls`, too, and never call its code."""
    built_in: Any = next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)

    def new(made: type[StepError]) -> Any:
        return built_in.__new__(made)

    def init(made: StepError) -> None:
        """Set nothing: the class's own would want its arguments."""

    def reduce(error: StepError) -> tuple[Any, ...]:
        return like, (cls, StepError(*error.args))

    members = {
        "__new__": new,
        "__init__": init,
        "__reduce__": reduce,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    return type(cls.__name__, (StepError, cls), members)
