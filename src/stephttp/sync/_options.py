"""`step.options(...)`, blocking: settings of one step (retries, timeout), before its tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from stephttp._core import http_steps
from stephttp._core.inference import AIAdapter
from stephttp._core.step_options import (
    BlockingStepSettings,
    StepOptions,
    policy_of_request,
    step_options,
)
from stephttp._core.tool_types import FetchResponse
from stephttp.sync._blocking import request, run_step

P = ParamSpec("P")
T = TypeVar("T")


class SyncAI:
    """Calls of models; use it as `step.ai`."""

    def __init__(self, options: StepOptions | None = None) -> None:
        self._options = options

    def infer(
        self,
        step_id: str,
        *,
        adapter: AIAdapter,
        body: Mapping[str, Any],
        output_type: Any = Any,
    ) -> Any:
        """Let the server call a model; see `stephttp.step.ai`. Raises `Suspended`."""
        options = self._options
        policy = None if options is None else policy_of_request(options, step_id, "ai.infer")
        return request("ai.infer", http_steps.infer(step_id, adapter, body, output_type, policy))


class SyncStepRunner:
    """The tools that take options of the step itself; see `stephttp.step.options`."""

    def __init__(self, options: StepOptions) -> None:
        self._options = options

    def run(self, step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function once, with these options; see `stephttp.step.run`."""
        result: T = run_step(self._options, step_id, handler, args, kwargs)
        return result

    def fetch(
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
        response: FetchResponse = request("fetch", wait)
        return response

    @property
    def ai(self) -> SyncAI:
        """Calls of models, retried so; see `stephttp.step.ai`."""
        return SyncAI(self._options)


class SyncTypedStepRunner(Generic[T]):
    """`step.run` with options of the step itself, one of which is its result's type."""

    def __init__(self, options: StepOptions) -> None:
        self._options = options

    def run(
        self, step_id: str, handler: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function once, with these options; see `stephttp.step.run`."""
        result: T = run_step(self._options, step_id, handler, args, kwargs)
        return result


@overload
def options(**settings: Unpack[BlockingStepSettings]) -> SyncStepRunner: ...
@overload
def options(
    *, output_type: type[T], **settings: Unpack[BlockingStepSettings]
) -> SyncTypedStepRunner[T]: ...
@overload
def options(
    *, output_type: Any, **settings: Unpack[BlockingStepSettings]
) -> SyncTypedStepRunner[Any]: ...
def options(*, output_type: Any = Any, **settings: Unpack[BlockingStepSettings]) -> Any:
    """Set options of one step, followed by `.run(...)`; see `stephttp.step.options`.

    A function with a `timeout` is not interrupted: it fails when it returns too late.
    """
    chosen = step_options(settings, output_type, blocking=True)
    return SyncStepRunner(chosen) if output_type is Any else SyncTypedStepRunner[Any](chosen)
