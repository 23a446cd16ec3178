"""The line of your code that a finding names: the innermost one that is not a library's."""

from __future__ import annotations

import inspect
import sys
import sysconfig
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from os.path import dirname, join
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any

from stephttp.testing.findings import NOWHERE, Place

PACKAGE = join(dirname(dirname(__file__)), "")
_LIBRARIES = tuple(
    {join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_DEPTH = 12
"""Callers that are kept of where a coroutine was made."""


@lru_cache(maxsize=4096)
def is_users(filename: str) -> bool:
    """Return whether a file is of the user's own code: not of stephttp, Python or a package."""
    if filename.startswith(("<", PACKAGE)):
        return False
    if "site-packages" in filename or "dist-packages" in filename:
        return False
    return not filename.startswith(_LIBRARIES)


def is_librarys(code: CodeType) -> bool:
    """Return whether code is of an installed package, and not of Python itself or the user."""
    name = code.co_filename
    if name.startswith(PACKAGE):
        return False
    return "site-packages" in name or "dist-packages" in name


def users_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Return the frames of the user's code that are at work, the innermost first."""
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def handlers_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Return the frames of the user's code, the innermost first, up to where a framework, or
    stephttp, has called it."""
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    while frame is not None:
        name = frame.f_code.co_filename
        if is_users(name):
            yield frame
        elif is_librarys(frame.f_code) or name.startswith(PACKAGE):
            return
        frame = frame.f_back


def place_here(frame: FrameType | None) -> Place:
    """Return the line of the user's code that is at work; of a coroutine that runs as a task of its
    own, where it was made."""
    for found in users_frames(frame):
        return Place(found.f_code.co_filename, found.f_lineno)
    return _origin_of_task()


def place_of(traceback: TracebackType | None) -> Place:
    """Return the innermost line of the user's code in a traceback."""
    found = NOWHERE
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if is_users(name):
            found = Place(name, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _origin_of_task() -> Place:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return NOWHERE
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return NOWHERE
    origin = None if task is None else getattr(task.get_coro(), "cr_origin", None)
    for filename, line, _ in origin or ():
        if is_users(filename):
            return Place(filename, line)
    return NOWHERE


@contextmanager
def known_origins() -> Generator[None]:
    """Note, in this thread, where coroutines are made."""
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(max(before, _DEPTH))
    try:
        yield
    finally:
        sys.set_coroutine_origin_tracking_depth(before)


class Returns:
    """Sees with which line functions return, in the thread that starts it.

    Args:
        code: the functions.
    """

    def __init__(self, code: Collection[CodeType]) -> None:
        self._code = frozenset(code)
        self._last = NOWHERE
        self._before: Any = None

    def start(self) -> None:
        """Begin to look."""
        self._before = sys.getprofile()
        sys.setprofile(self._see)

    def stop(self) -> Place:
        """Look no more, and return the line of the last return."""
        if sys.getprofile() == self._see:  # in the thread that looks
            sys.setprofile(self._before)
        return self._last

    def _see(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "return" and frame.f_code in self._code:
            self._last = Place(frame.f_code.co_filename, frame.f_lineno)


_MOST_FUNCTIONS = 200
"""Functions in which texts are looked for."""


def texts_in(frame: FrameType | None) -> frozenset[str]:
    """Return the texts that stand in the user's functions that are at work, and in those that they
    name."""
    found: set[str] = set()
    seen: set[CodeType] = set()
    left = [(one.f_code, one.f_globals) for one in handlers_frames(frame)]
    while left and len(seen) < _MOST_FUNCTIONS:
        code, names = left.pop()
        if code in seen or not is_users(code.co_filename):
            continue
        seen.add(code)
        found.update(text for text in code.co_consts if isinstance(text, str))
        left += [(inner, names) for inner in code.co_consts if isinstance(inner, CodeType)]
        for name in code.co_names:
            function = inspect.unwrap(value) if callable(value := names.get(name)) else None
            if isinstance(function, FunctionType):
                left.append((function.__code__, function.__globals__))
    return frozenset(found)
