"""Functions with options that decide whether and when a run starts, as coroutines and blocking."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest

KEY = "event.data.key"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)

OPTIONS: dict[str, dict[str, Any]] = {
    "batch": {"batch_events": inngest.Batch(max_size=2, timeout=MINUTE, key=KEY)},
    "batch-late": {"batch_events": inngest.Batch(max_size=50, timeout=SECOND, key=KEY)},
    "debounced": {"debounce": inngest.Debounce(period=SECOND, timeout=MINUTE, key=KEY)},
    "limited": {"rate_limit": inngest.RateLimit(limit=1, period=MINUTE, key=KEY)},
    "idempotent": {"idempotency": "event.data.id"},
}
"""Of functions that return what they were started with."""
SINGLETONS = {
    "only-one": inngest.Singleton(mode="skip", key=KEY),
    "newest": inngest.Singleton(mode="cancel", key=KEY),
}


def numbers(ctx: inngest.Context | inngest.ContextSync) -> Any:
    return {"n": ctx.event.data.get("n"), "all": [event.data.get("n") for event in ctx.events]}


def blocking(client: inngest.Inngest) -> Iterator[inngest.Function[Any]]:
    """Functions that block."""

    def function(fn_id: str, **options: Any) -> Any:
        trigger = inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}")
        return client.create_function(fn_id=fn_id, trigger=trigger, retries=1, **options)

    def plain(ctx: inngest.ContextSync) -> Any:
        return numbers(ctx)

    made = {name: function(name, **options)(plain) for name, options in OPTIONS.items()}
    yield from made.values()

    def waits(ctx: inngest.ContextSync) -> Any:
        found = ctx.step.wait_for_event(
            "w",
            event=f"{client.app_id}/release",
            if_exp="event.data.key == async.data.key",
            timeout=MINUTE,
        )
        return {"released": found is not None, **numbers(ctx)}

    for name, singleton in SINGLETONS.items():
        yield function(name, singleton=singleton)(waits)

    @function("invoke-limited")
    def invoke_limited(ctx: inngest.ContextSync) -> Any:
        data = {"key": ctx.event.data["key"], "n": 1}
        good = ctx.step.invoke("first", function=made["limited"], data=data)
        try:
            return ctx.step.invoke("second", function=made["limited"], data=data)
        except inngest.StepError as error:
            return {"good": good, "error": [error.name, error.message]}

    @function("invoke-held")
    def invoke_held(ctx: inngest.ContextSync) -> Any:
        data = {"key": ctx.event.data["key"], "n": 7}
        return ctx.step.invoke("held", function=made["batch-late"], data=data)

    yield from (invoke_limited, invoke_held)


def coroutines(client: inngest.Inngest) -> Iterator[inngest.Function[Any]]:
    """Functions that are coroutines."""

    def function(fn_id: str, **options: Any) -> Any:
        trigger = inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}")
        return client.create_function(fn_id=fn_id, trigger=trigger, retries=1, **options)

    async def plain(ctx: inngest.Context) -> Any:
        return numbers(ctx)

    made = {name: function(name, **options)(plain) for name, options in OPTIONS.items()}
    yield from made.values()

    async def waits(ctx: inngest.Context) -> Any:
        found = await ctx.step.wait_for_event(
            "w",
            event=f"{client.app_id}/release",
            if_exp="event.data.key == async.data.key",
            timeout=MINUTE,
        )
        return {"released": found is not None, **numbers(ctx)}

    for name, singleton in SINGLETONS.items():
        yield function(name, singleton=singleton)(waits)

    @function("invoke-limited")
    async def invoke_limited(ctx: inngest.Context) -> Any:
        data = {"key": ctx.event.data["key"], "n": 1}
        good = await ctx.step.invoke("first", function=made["limited"], data=data)
        try:
            return await ctx.step.invoke("second", function=made["limited"], data=data)
        except inngest.StepError as error:
            return {"good": good, "error": [error.name, error.message]}

    @function("invoke-held")
    async def invoke_held(ctx: inngest.Context) -> Any:
        data = {"key": ctx.event.data["key"], "n": 7}
        return await ctx.step.invoke("held", function=made["batch-late"], data=data)

    yield from (invoke_limited, invoke_held)
