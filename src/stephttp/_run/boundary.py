"""The boundary of a handler with `@provider.endpoint`: there its unwinding ends when the run has to
wait, so that dependencies and sessions close as usual (docs/design.md 3.15).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import iscoroutine
from typing import Any

from stephttp._run.current import current_call
from stephttp._run.hidden_exceptions import note_left
from stephttp._run.scope import RunScope

UNKNOWN = object()
"""Stands for the placeholder of a framework that is not known."""


async def to_its_end(scope: RunScope, handler: Awaitable[Any], args: Any, kwargs: Any) -> Any:
    """Await a handler; if its run has to wait, return a placeholder instead of being ended."""
    if not _guard(scope):
        return await handler
    stand_in: Any = UNKNOWN
    try:
        value = await handler
        stand_in = _stand_in(scope, None, args, kwargs)
        if stand_in is UNKNOWN:
            return value
    except BaseException as error:
        stand_in = _stand_in(scope, error, args, kwargs)
        if stand_in is UNKNOWN:
            note_left(scope, error)
            raise
    finally:
        _unguard(scope)
    return await stand_in if iscoroutine(stand_in) else stand_in


def called(scope: RunScope, handler: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a handler; the same for one that blocks."""
    if not _guard(scope):
        return handler(*args, **kwargs)
    try:
        value = handler(*args, **kwargs)
        stand_in = _stand_in(scope, None, args, kwargs)
        return value if stand_in is UNKNOWN else stand_in
    except BaseException as error:
        stand_in = _stand_in(scope, error, args, kwargs)
        if stand_in is UNKNOWN:
            note_left(scope, error)
            raise
        return stand_in
    finally:
        _unguard(scope)


def _stand_in(scope: RunScope, error: BaseException | None, args: Any, kwargs: Any) -> Any:
    """Return what stands for the answer of a handler that was ended to wait.

    Args:
        error: what it raised. It may also have caught what ended it, and returned.

    Returns:
        `UNKNOWN` where the handler's own end has to stand.
    """
    if not scope.run.unwinding:
        return UNKNOWN
    from stephttp._run.placeholders import placeholder

    call = current_call.get()
    surroundings: Mapping[str, Any] = {} if call is None else call.surroundings
    found = placeholder(args, kwargs, surroundings)
    if found is UNKNOWN or _is_overtaken(scope, error):
        return found
    if iscoroutine(found):
        found.close()
    return UNKNOWN


def _guard(scope: RunScope) -> bool:
    """Note that a decorated handler begins, at which the unwinding ends; `_unguard` follows.

    Returns:
        Whether it ends there; not inside another one, which still has to be ended.
    """
    if scope.guarded:
        return False
    scope.guarded = True
    scope.handler_begins()
    return True


def _unguard(scope: RunScope) -> None:
    """Note that a decorated handler has ended."""
    scope.guarded = False
    scope.handler_ends()


def _is_overtaken(scope: RunScope, error: BaseException | None) -> bool:
    """Say whether a decorated handler was ended only because its run has to wait.

    What else it may have raised meanwhile is logged, and ends here as well.

    Args:
        error: what it raised.
    """
    if scope.cancelled_in_handler(error) or not scope.run.unwinding:
        return False
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        return False
    scope.log_unless_ended(error)
    return True
