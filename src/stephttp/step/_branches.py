"""The branches of `step.parallel` and of races, async, each in a task of its own; and the way to
the tools of code outside of requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from stephttp._run.places import enter_branch
from stephttp._run.scope import RunScope

if TYPE_CHECKING:
    from stephttp._run.other_runs import OutsideTools


def outside() -> OutsideTools:
    """Return the tools for the current code, which no request has called.

    Raises:
        UsageError: it belongs to a plain function of another SDK.
    """
    # Few applications need these.
    from stephttp._run.other_runs import other_tools
    from stephttp.step._outside import NO_RUN

    return other_tools(blocking=False) or NO_RUN


async def run_branch(
    scope: RunScope | None, number: int, body: Callable[[], Awaitable[Any]]
) -> Any:
    """Run a branch of `parallel` or of a race, in a task of its own."""
    if scope is not None:
        enter_branch(scope, number)
    return await called(body)


async def side_by_side(
    scope: RunScope | None, callables: Iterable[Callable[[], Awaitable[Any]]]
) -> tuple[Any, ...]:
    """Run branches until all have ended, and raise what the first failed one raised."""
    import asyncio

    branches = (run_branch(scope, number, one) for number, one in enumerate(callables))
    results = await asyncio.gather(*branches, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(results)


async def called(body: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, which may be async or a plain one."""
    value = body(*args, **kwargs)
    return await value if isawaitable(value) else value
