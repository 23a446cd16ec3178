"""The limits of an endpoint: given to its run before the handler starts, and refused where the
server does not keep them.

They are sent with the first checkpoint. Another server than the stephttp engine would not read
them, and call more runs at a time than the application can bear.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from stephttp._client.flow import Flow
from stephttp._core.endpoint_limits import EndpointLimits
from stephttp._run.branches import suspension
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.scope import RunScope
from stephttp._run.server_question import is_ours
from stephttp._wire.limits_of_run import FEATURE
from stephttp.errors import APIError, UsageError


def limit(
    scope: RunScope, limits: EndpointLimits, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Flow[bool] | None:
    """Give a run that begins what its calls have to pass.

    Args:
        args, kwargs: what the handler gets.

    Returns:
        What comes before the handler, and returns whether that is to begin; `None`: nothing.

    Raises:
        UsageError: the server does not keep limits, or a function of the application returned
            something else than it may.
    """
    if scope.first_call is None:  # the engine has them already
        return None
    scope.run.limit(limits.of(args, kwargs))
    checkpoints = scope.runtime.checkpoints
    asks = checkpoints.keys.features is None
    if not asks:
        _check(checkpoints, limits.names)
    if limits.refuses:
        scope.within_limits, scope.claim = True, scope.first_call.open_within_limits
    return _before(scope, limits.names, asks=asks) if asks or limits.refuses else None


def refusal(checkpoints: Checkpoints, names: str = "concurrency, throttle, priority") -> str:
    """Return why the server does not do for limits; empty where it does.

    Args:
        names: the options that were given.
    """
    keys = checkpoints.keys
    if keys.supports(FEATURE):
        return ""
    base_url = checkpoints.settings.base_url
    if keys.features:
        return (
            f"{names}: the stephttp engine at {base_url} is of a release that does not keep limits "
            "of endpoints; update it, or take the options out of @provider.endpoint"
        )
    return (
        f"{names}: only the stephttp engine keeps limits of endpoints, and the server at "
        f"{base_url} is another one; use the engine, or take the options out of @provider.endpoint"
    )


async def begin(scope: RunScope, before: Flow[bool], handler: Awaitable[Any]) -> Any:
    """Await an `async def` handler, if what comes before it lets it begin."""
    try:
        if not await scope.drive(before):
            await scope.suspend()
    except BaseException:
        if isinstance(handler, Coroutine):
            handler.close()
        raise
    return await handler


def begin_blocking(
    scope: RunScope, before: Flow[bool], handler: Callable[..., Any]
) -> Callable[..., Any]:
    """Return what calls a handler that blocks, if what comes before it lets it begin."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not scope.block(before):
            raise suspension(scope, "room within the limits of its endpoint")
        return handler(*args, **kwargs)

    return call


def _before(scope: RunScope, names: str, *, asks: bool) -> Flow[bool]:
    checkpoints = scope.runtime.checkpoints
    if asks:
        try:
            yield from is_ours(checkpoints)
        except APIError:
            pass  # the handler may well end without waiting; a run that waits asks again
        else:
            _check(checkpoints, names)
    return not scope.within_limits or (yield from scope.settle_claim())


def _check(checkpoints: Checkpoints, names: str) -> None:
    why = refusal(checkpoints, names)
    if why:
        raise UsageError(why)
