"""The arguments that a handler gives to a step, as text that `always_replay` compares between two
calls.

Of values that have no form of their own (sessions, clients, files) only the type is known. Objects
of the user's classes are compared by their attributes, unless a call before had the very same
object: then it is a service, and not a value.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dis import get_instructions
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any

from stephttp._core.conversion import CONVERSIONS
from stephttp.step import _running as asynchronous
from stephttp.sync import _blocking as blocking
from stephttp.testing.places_in_code import PACKAGE, is_users, users_frames

Given = Mapping[str, str]
"""By the name of the argument, or of the variable that the step's function takes along."""

_RUNS = frozenset({asynchronous.run_step.__code__, blocking.run_step.__code__})
_NAMED = frozenset({"step_id", "self", "function", "callables", "scope"})
"""Parameters of tools that name something, and are not compared."""
_LONGEST = 4000
_DEEPEST = 4


class Values:
    """What steps were given, so that services are not taken for values."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._now: dict[int, Any] = {}

    def next_call(self) -> None:
        """Note that another call begins."""
        self._before.update(self._now)
        self._now.clear()

    def given_here(self, frame: FrameType | None) -> tuple[Given, Callable[[], Given]]:
        """Return what the step is given whose tool is at work, and what returns it again later, as
        far as it may not change."""
        found = list(_given_here(frame))
        kept = [pair for pair in found if not _is_plain_object(pair[1])]
        rebound = list(_rebound_here(frame))

        def again() -> Given:
            new = ((name, value) for name, cell in rebound for value in _content(cell))
            return {**self._known(kept), **self._known(new)}

        return self._known(found), again

    def _known(self, found: Iterable[tuple[str, Any]]) -> Given:
        texts = ((name, self._text(value)) for name, value in found)
        return {name: text for name, text in texts if text is not None}

    def _text(self, value: Any) -> str | None:
        if _is_plain_object(value):
            if self._before.get(id(value)) is value:
                return None
            self._now[id(value)] = value
            return _of_object(value)
        return as_text(value)


def _rebound_here(frame: FrameType | None) -> Iterable[tuple[str, CellType]]:
    """Return the variables to which the step's function gives a value that the handler reads."""
    tool = _tool_in(frame)
    function = None if tool is None else tool.f_locals["handler"]
    while isinstance(function, functools.partial):
        function = function.func
    if not isinstance(function, FunctionType):
        return
    codes = [one.f_code for one in users_frames(tool)]
    read = {name for code in codes for name in _uses(code, "LOAD_DEREF") & {*code.co_cellvars}}
    for name in _uses(function.__code__, "STORE_DEREF") & read:
        if name in function.__code__.co_freevars:
            number = function.__code__.co_freevars.index(name)
            yield f"variable {name!r}", (function.__closure__ or ())[number]


@functools.lru_cache(maxsize=1024)
def _uses(code: CodeType, operation: str) -> frozenset[str]:
    """Return the variables with which code does an operation."""
    return frozenset(one.argval for one in get_instructions(code) if one.opname == operation)


def _content(cell: CellType) -> Iterable[Any]:
    try:
        yield cell.cell_contents
    except ValueError:  # it has no value
        return


def _tool_in(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the tool that runs functions, if that is at work."""
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        if frame.f_code in _RUNS:
            return frame
        frame = frame.f_back
    return None


def _given_here(frame: FrameType | None) -> Iterable[tuple[str, Any]]:
    if (tool := _tool_in(frame)) is not None:
        values = tool.f_locals
        function, args, kwargs = values["handler"], values["args"], values["kwargs"]
        own = {name for one in users_frames(tool) for name in one.f_code.co_cellvars}
        return _of_function(function, args, kwargs, own)
    outermost, inner = frame, frame
    while inner is not None and inner.f_code.co_filename.startswith(PACKAGE):
        outermost, inner = inner, inner.f_back
    if outermost is None:
        return ()
    code = outermost.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    found = ((name, outermost.f_locals.get(name)) for name in names if name not in _NAMED)
    return ((name, value) for name, value in found if not name.startswith("_"))


def _of_function(
    function: Any, args: Iterable[Any], kwargs: Mapping[str, Any], own: set[str]
) -> Iterable[tuple[str, Any]]:
    """Return what a function is called with, and what it takes along from the handler."""
    while isinstance(function, functools.partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    for number, value in enumerate(args, 1):
        yield f"argument {number}", value
    for name, value in kwargs.items():
        yield f"argument {name!r}", value
    if not isinstance(function, FunctionType) or not is_users(function.__code__.co_filename):
        return
    for number, value in enumerate(function.__defaults__ or (), 1):
        yield f"default {number}", value
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        if name in own:  # others belong to what is around the handler, such as a test
            try:
                yield f"variable {name!r}", cell.cell_contents
            except ValueError:  # it has no value yet
                continue


def as_text(value: Any) -> str | None:
    """Return a value as text, with the keys of dicts in their order; `None` of functions."""
    if callable(value):
        return None
    try:
        text = _text(value, 0)
    except Exception:  # of the value's own code
        text = _name(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({hashlib.sha256(text.encode()).hexdigest()[:12]})"


def _text(value: Any, depth: int) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False, default=str)
    if depth > _DEEPEST:
        return "…"

    def deeper(inner: Any) -> str:
        return _text(inner, depth + 1)

    if isinstance(value, Mapping):
        pairs = (f"{deeper(key)}: {deeper(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(deeper, value)) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(deeper, value))) + "}"
    return _name(value) if callable(value) else _encoded(value) or _name(value)


def _of_object(value: Any) -> str:
    fields = (f"{name}={_text(inner, 1)}" for name, inner in vars(value).items())
    return f"{type(value).__name__}({', '.join(fields)})"


def _is_plain_object(value: Any) -> bool:
    """Return whether an object is of a class of the user's own, without a form of its own."""
    if callable(value) or not hasattr(value, "__dict__") or _encoded(value) is not None:
        return False
    method = vars(type(value)).get("__init__")
    code = getattr(method, "__code__", None)
    return code is not None and is_users(code.co_filename)


def _encoded(value: Any) -> str | None:
    try:
        return CONVERSIONS.encode(value).decode()
    except Exception:  # it has no JSON form
        return None


def _name(value: Any) -> str:
    return f"<{type(value).__name__}>"
