"""The error for an async function that a blocking tool was given."""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from stephttp._run.own_context import InContext


def async_refused(what: str) -> TypeError:
    """Return what is raised for an async function that a blocking tool was given.

    Args:
        what: whose function it is.
    """
    return TypeError(
        f"{what}: the tools of stephttp.sync cannot run an async function; use the "
        "async tools (from stephttp import step) in an async handler, or a plain function"
    )


def refuse_coroutine(value: Any, what: str) -> Any:
    """Return what a function returned, unless that would have to be awaited: a `lambda` calls an
    async function without being one.

    Raises:
        TypeError: it is a coroutine, which has done nothing.
    """
    if not isinstance(value, CoroutineType | InContext):
        return value
    value.close()
    raise async_refused(what)
