"""Tracebacks of tests that end in your code, and leave out how a request came to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

from stephttp.errors import UsageError
from stephttp.testing.places_in_code import is_users

_TO_APP = ("stephttp.testing.asgi_calls", "stephttp.testing.wsgi_calls")
_STUBS = ("stephttp.testing.stubs", "stephttp.testing.recorded_calls")
_EXPLAINED = (AssertionError, LookupError, UsageError)
"""Errors whose messages say what the user can do; of others, the place in this package counts."""


def without_client(error: BaseException) -> None:
    """Leave out of the traceback of an error what a client does between test and application."""
    end_in_users_code(error)
    entries = list(_all(error.__traceback__))
    for one in entries:
        if _module(one) in _TO_APP:
            error.__traceback__ = one
            return
    if _is_ours(error, entries):
        error.__traceback__ = None


def end_in_users_code(error: BaseException) -> None:
    """Let the traceback of an error end in the code of the user, if it is one of this package, or
    a stub has raised it."""
    entries = list(_all(error.__traceback__))
    users = [one for one in entries if is_users(one.tb_frame.f_code.co_filename)]
    if users and _is_ours(error, entries):
        users[-1].tb_next = None


def _is_ours(error: BaseException, entries: Sequence[TracebackType]) -> bool:
    raised_in = _module(entries[-1]) if entries else ""
    is_explained = isinstance(error, _EXPLAINED) and raised_in.startswith("stephttp.testing.")
    return is_explained or raised_in in _STUBS


def _all(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _module(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__", ""))
