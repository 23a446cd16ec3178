"""`step.options(...)`, async: settings of one step (retries, timeout, thread), before its tool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from stephttp._core import http_steps
from stephttp._core.step_options import (
    StepOptions,
    StepSettings,
    policy_of_request,
    step_options,
)
from stephttp._core.tool_types import FetchResponse
from stephttp.step._calling import AI
from stephttp.step._running import run_step
from stephttp.step._waiting import request

P = ParamSpec("P")
T = TypeVar("T")


class StepRunner:
    """The tools that take options of the step itself; see `options`."""

    def __init__(self, options: StepOptions) -> None:
        self._options = options

    @overload
    async def run(
        self, step_id: str, handler: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def run(
        self, step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    def run(self, step_id: str, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function once, with these options; see `stephttp.step.run`."""
        return run_step(self._options, step_id, handler, args, kwargs)

    async def fetch(
        self,
        step_id: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> FetchResponse:
        """Let the server make an HTTP request, retried so; see `stephttp.step.fetch`."""
        policy = policy_of_request(self._options, step_id, "fetch")
        wait = http_steps.fetch(step_id, url, method, headers, body, policy)
        response: FetchResponse = await request("fetch", wait)
        return response

    @property
    def ai(self) -> AI:
        """Calls of models, retried so; see `stephttp.step.ai`."""
        return AI(self._options)


class TypedStepRunner(Generic[T]):
    """`step.run` with options of the step itself, one of which is its result's type."""

    def __init__(self, options: StepOptions) -> None:
        self._options = options

    async def run(
        self, step_id: str, handler: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function once, with these options; see `stephttp.step.run`."""
        result: T = await run_step(self._options, step_id, handler, args, kwargs)
        return result


@overload
def options(**settings: Unpack[StepSettings]) -> StepRunner: ...
@overload
def options(*, output_type: type[T], **settings: Unpack[StepSettings]) -> TypedStepRunner[T]: ...
@overload
def options(*, output_type: Any, **settings: Unpack[StepSettings]) -> TypedStepRunner[Any]: ...
def options(*, output_type: Any = Any, **settings: Unpack[StepSettings]) -> Any:
    """Set options of one step: `step.options(retries=3).run("id", function, ...)`.

    Args:
        output_type: the type of its result, where `handler` has no return annotation or another
            one is wanted.
        **settings: see `StepSettings`. Of these, `retries`, `delay` and `max_delay` are also for
            `fetch` and `ai.infer`.

    Returns:
        An object with `run`, `fetch` and `ai.infer`, which take what those of `step` take; with
            `output_type`, only `run`. It can be kept and shared.

    Raises:
        TypeError: an option does not exist, or a value has another type.
        ValueError: a value is out of range, or two contradict each other.
    """
    chosen = step_options(settings, output_type)
    return StepRunner(chosen) if output_type is Any else TypedStepRunner[Any](chosen)
