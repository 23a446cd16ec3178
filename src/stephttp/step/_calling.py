"""`step.invoke`, `invoke_by_id`, `fetch` and `ai.infer`, async: steps that the server carries
out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from stephttp._core import http_steps, waits
from stephttp._core.inference import AIAdapter
from stephttp._core.step_options import StepOptions, policy_of_request
from stephttp._core.tool_types import FetchResponse
from stephttp.step._waiting import request

T = TypeVar("T")


@overload
async def invoke(
    step_id: str,
    *,
    function: Callable[..., Awaitable[T]],
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
) -> T: ...
@overload
async def invoke(
    step_id: str,
    *,
    function: Callable[..., T],
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
) -> T: ...
@overload
async def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: type[T],
) -> T: ...
@overload
async def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any: ...
async def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any:
    """Call another function through the server, and wait for what it returns.

    Args:
        step_id: names the step within the run.
        function: a durable endpoint that has an id, an `inngest.Function`, or an id.
        data: becomes `event.data` of the function. Must have a JSON form.
        timeout: at most 366 days; without one, as long as the server allows (a year).
        v: becomes `event.v`.
        output_type: the type of the result, where `function` does not say it.

    Returns:
        What the function returned. Of a durable endpoint it is the body of its response: what
        its handler returned.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has started, so the caller can no longer be redirected.
        StepError: the function failed, is not known, or took too long; or the endpoint answered
            with a status of 400 or more.
        UsageError: the server is an Inngest server, and `function` a durable endpoint, which only
            the stephttp engine can invoke.
        TypeError: an argument has another type.
        ValueError: an argument is not acceptable.
    """
    return await request("invoke", waits.invoke(step_id, function, data, timeout, v, output_type))


async def invoke_by_id(
    step_id: str,
    *,
    app_id: str | None = None,
    function_id: str,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any:
    """Call another function through the server by its id, and wait for what it returns.

    Args:
        step_id: names the step within the run.
        app_id: the app to which the function belongs; without it, `function_id` is taken as the
            server knows it (`app-function`).
        function_id: the function.
        data: becomes `event.data` of the function. Must have a JSON form.
        timeout: at most 366 days; without one, as long as the server allows (a year).
        v: becomes `event.v`.
        output_type: the type of the result; plain JSON without one.

    Returns:
        What the function returned.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has started, so the caller can no longer be redirected.
        StepError: the function failed, is not known, or took too long.
        TypeError: an argument has another type.
    """
    name = waits.function_slug(step_id, app_id, function_id)
    return await request("invoke_by_id", waits.invoke(step_id, name, data, timeout, v, output_type))


async def fetch(
    step_id: str,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> FetchResponse:
    """Let the server make an HTTP request while this handler does not run.

    Args:
        step_id: names the step within the run.
        url: an address that the server can reach.
        method: HTTP method.
        headers: of the request. They are stored with the run.
        body: text.

    Returns:
        The answer, whatever its status.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has started, so the caller can no longer be redirected.
        StepError: there was no answer.
        UsageError: the server is an Inngest server, and `body` not JSON, which it would change.
        TypeError: an argument has another type.
        ValueError: `url` is not an address, or method, headers or body cannot be sent.
    """
    response: FetchResponse = await request(
        "fetch", http_steps.fetch(step_id, url, method, headers, body)
    )
    return response


class AI:
    """Calls of models; use it as `step.ai`."""

    def __init__(self, options: StepOptions | None = None) -> None:
        self._options = options

    async def infer(
        self,
        step_id: str,
        *,
        adapter: AIAdapter,
        body: Mapping[str, Any],
        output_type: Any = Any,
    ) -> Any:
        """Let the server call a model while this handler does not run.

        Args:
            step_id: names the step within the run.
            adapter: how the provider is called: a `stephttp.ModelAdapter`, or an adapter of
                `inngest.experimental.ai`. Its key is stored with the run.
            body: the request in the provider's own form.
            output_type: the type of the answer; plain JSON without one.

        Returns:
            The provider's answer.

        Raises:
            OutsideRunError: called outside a request that passes through the middleware.
            CannotWaitError: the response has started, so the caller can no longer be redirected.
            StepError: the provider did not answer with success; `data` is its answer.
            ValueError: `body` has no JSON form.
        """
        options = self._options
        policy = None if options is None else policy_of_request(options, step_id, "ai.infer")
        return await request(
            "ai.infer", http_steps.infer(step_id, adapter, body, output_type, policy)
        )


ai = AI()
"""Calls of models, carried out by the server."""
