"""`@provider.endpoint(...)` and `stephttp.configure(...)`: the options of an endpoint, by a
decorator or set by its handler.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from msgspec import structs

from stephttp._core import checks, retry_policy
from stephttp._core.checkpointing import Checkpointing, check_duration
from stephttp._core.endpoint_options import AsyncResponse, FnOpts, OnDivergence
from stephttp._core.retry_policy import ExceptionTypes
from stephttp._core.waits import ENDPOINT_ID
from stephttp._run.boundary import called, to_its_end
from stephttp._run.callers import CallerOf
from stephttp._run.current import configured_scope
from stephttp._run.scope import RunScope
from stephttp.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from stephttp._client.flow import Flow
    from stephttp._core.endpoint_limits import EndpointLimits

ON_LOOP = (
    "refuse_over_limit: a plain handler on the event loop would block it; make it `async def`, or "
    "let the framework run it in a thread"
)

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")


def configure(
    opts: FnOpts | None = None,
    /,
    *,
    id: str | None = None,
    retries: int | None = None,
    omit_request_body: bool | None = None,
    omit_response_body: bool | None = None,
    async_response: AsyncResponse | None = None,
    idempotency: str | None = None,
    max_runtime: timedelta | None = None,
    checkpointing: Checkpointing | None = None,
    delay: timedelta | None = None,
    max_delay: timedelta | None = None,
    retry_on: ExceptionTypes | None = None,
    give_up_on: ExceptionTypes | None = None,
    on_divergence: OnDivergence | None = None,
) -> None:
    """Set options of the current endpoint. Call it once, before the first step.

    Outside a request that passes through the middleware it does nothing.

    Args:
        opts: all of them as one value; the others refine it.
        id: name of the endpoint; by default method and route template (`POST /users/{id}`), or
            method and path where the framework has no template.
        retries: how often a failed step, and a resumed handler that fails, is tried again (0 to
            20). With 0, the default, a step's exception goes to the handler as in any Python code.
        omit_request_body: keep the request's body out of the server's record of the run. When
            the run goes async the body travels encrypted.
        omit_response_body: keep the response's body out of the record of a run that ends without
            waiting; see `update_omit_response_body`.
        async_response: what the caller gets when the request goes async.
        idempotency: a key of this endpoint: of the requests that give the same one, the first
            runs its steps, and the others get its answer (422 if they differ in method, path,
            query or body). Settled when the first step is met, by a call of the engine. The same
            key of two callers is the same key, so let it name the caller, unless
            `setup(idempotency_scope=)` does. See `setup(idempotency_header=)`.
        max_runtime: after this time the next step is left to a new call by the server, and the
            caller is redirected to the result. Overrides that of `checkpointing`.
        checkpointing: when steps are sent while the request is still being answered; overrides
            that of `setup`.
        delay: the pause before the first repetition of a failed step, or of a handler that failed
            when it was resumed, at most 24 hours; each further one is twice as long. See
            `stephttp.step.options`, which sets it and those below for one step. Default: the
            pauses of the server.
        max_delay: the longest pause; default: 24 hours.
        retry_on: only these types of exceptions are worth a repetition.
        give_up_on: these types of exceptions are not worth one.
        on_divergence: what becomes of a run whose handler no longer fits what is remembered of it,
            because it has changed: a remembered step is not used any more, or is of another kind.
            `warn`, the default, writes a warning into the log and into the run's record. `fail`
            fails the run. Overrides that of `setup`.

    Raises:
        TypeError: a value has another type.
        ValueError: a value is out of range, or two contradict each other.
        ConfigurationError: `async_response` or `on_divergence` is not one, or `max_runtime` is not
            positive.
    """
    check_duration("max_runtime", max_runtime)
    given = checked(
        id=id,
        omit_request_body=omit_request_body,
        omit_response_body=omit_response_body,
        async_response=async_response,
        retries=retries,
        delay=delay,
        max_delay=max_delay,
        retry_on=retry_on,
        give_up_on=give_up_on,
        on_divergence=on_divergence,
    )
    if opts is not None:
        whole: dict[str, Any] = {**structs.asdict(opts), "id": opts.id or None}
        given = {**checked(**whole), **given}
    scope = configured_scope()
    if scope is None:
        return
    if scope.configured:
        warnings.warn(
            "stephttp.configure was called twice in one request; the later values win",
            stacklevel=2,
        )
    scope.configured = True
    _apply(scope, given, checkpointing, max_runtime)
    _claim(scope, idempotency)


def update_omit_response_body(to: bool) -> None:
    """Set whether the response's body is kept out of the record of the current run.

    May be called at any time before the response is complete: so that, say, errors are recorded
    and the rest is not. Outside a request that passes through the middleware it does nothing.

    Args:
        to: True keeps the body out.
    """
    scope = configured_scope()
    if scope is not None:
        scope.run.configure(omit_response_body=to)


def decorator(
    given: dict[str, Any],
    idempotency: Callable[..., str | None] | None,
    idempotency_scope: CallerOf | None,
    max_runtime: timedelta | None,
    checkpointing: Checkpointing | None,
    limits: EndpointLimits | None,
    ids: set[str],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that sets the options of an endpoint; see `Provider.endpoint`.

    Args:
        given: see `checked`.
        limits: see `limits_of`.
        ids: is to have the ids of all endpoints of its provider.
    """
    check_duration("max_runtime", max_runtime)
    if idempotency is not None and not callable(idempotency):
        raise ConfigurationError(
            f"idempotency must be a function that returns the key, not {idempotency!r}; for "
            "one key use stephttp.configure(idempotency=...)"
        )
    checks.idempotency_scope(idempotency_scope)
    if idempotency_scope is not None and idempotency is None:
        raise ConfigurationError(
            "idempotency_scope says whose the keys of `idempotency` are; give both, or "
            "setup(idempotency_scope=...) for the keys of requests to all endpoints"
        )

    def apply(*args: Any, **kwargs: Any) -> RunScope | None:
        scope = configured_scope()
        if scope is not None:
            _apply(scope, given, checkpointing, max_runtime)
            if idempotency is not None and scope.first_call and not scope.key_claimed:
                _claim(scope, idempotency(*args, **kwargs), idempotency_scope)
        return scope

    def named(wrapper: F) -> F:
        if "id" in given:
            setattr(wrapper, ENDPOINT_ID, given["id"])  # for `step.invoke(function=...)`
            ids.add(given["id"])
        return wrapper

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(handler):

            @functools.wraps(handler)
            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                scope = apply(*args, **kwargs)
                if scope is None:
                    return await handler(*args, **kwargs)
                before = None if limits is None else _limit(scope, limits, args, kwargs)
                value: Awaitable[Any] = handler(*args, **kwargs)
                if before is not None:
                    from stephttp._run.limited_runs import begin

                    value = begin(scope, before, value)
                return await to_its_end(scope, value, args, kwargs)

            return named(wrapper)  # type: ignore[return-value]

        @functools.wraps(handler)
        def plain_wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
            scope = apply(*args, **kwargs)
            if scope is None:
                return handler(*args, **kwargs)
            before = None if limits is None else _limit(scope, limits, args, kwargs)
            first: Callable[..., Any] = handler
            if before is not None and not scope.holds_up_loop():
                from stephttp._run.limited_runs import begin_blocking

                first, before = begin_blocking(scope, before, handler), None
            value: Any = called(scope, first, args, kwargs)
            if not iscoroutine(value):
                if scope.within_limits and before is not None:
                    raise UsageError(ON_LOOP)
                return value
            # Such as that of a class-based view of Django, whose method is async.
            if before is not None:
                from stephttp._run.limited_runs import begin

                value = begin(scope, before, value)
            return to_its_end(scope, value, args, kwargs)

        return named(plain_wrapper)

    return decorate


def checked(
    *,
    id: str | None,
    omit_request_body: bool | None,
    omit_response_body: bool | None,
    async_response: AsyncResponse | None,
    on_divergence: OnDivergence | None,
    **policy: Any,
) -> dict[str, Any]:
    """Return the options that were given, checked.

    Args:
        policy: how failures are retried; see `retry_policy.checked`.
    """
    if id is not None and not id:
        raise ValueError("id must not be empty; leave it out for the default")
    if async_response is not None:
        checks.async_response("async_response", async_response)
    if on_divergence is not None:
        checks.on_divergence(on_divergence)
    values = {
        "id": id,
        "omit_request_body": omit_request_body,
        "omit_response_body": omit_response_body,
        "async_response": async_response,
        "on_divergence": on_divergence,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return {**given, **retry_policy.checked(**policy)}


def _apply(
    scope: RunScope,
    given: dict[str, Any],
    checkpointing: Checkpointing | None,
    max_runtime: timedelta | None,
) -> None:
    """Set options of a run."""
    scope.run.configure(**given)
    if checkpointing is not None:
        scope.checkpointing = checkpointing
        scope.limit(checkpointing.max_runtime)
    if max_runtime is not None:
        scope.limit(max_runtime)


def _claim(scope: RunScope, key: Any, whose: CallerOf | None = None) -> None:
    """Have an idempotency key claimed before the first step, if there is one to claim."""
    if key is not None and not isinstance(key, str):
        raise UsageError(f"an idempotency key must be a text, not {key!r}")
    if key and scope.within_limits:
        raise UsageError(
            "configure(idempotency=...): a run whose endpoint has refuse_over_limit cannot have an "
            "idempotency key; leave one out"
        )
    if key and scope.first_call is not None and not scope.key_claimed:
        scope.claim = partial(scope.first_call.claim_late, key, whose)


def _limit(scope: RunScope, limits: EndpointLimits, args: Any, kwargs: Any) -> Flow[bool] | None:
    """Give a run its limits; see `limited_runs.limit`."""
    from stephttp._run.limited_runs import limit

    return limit(scope, limits, args, kwargs)
