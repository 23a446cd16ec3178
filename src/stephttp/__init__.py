"""Durable HTTP endpoints for Python.

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")
app = provider.asgi(app)
"""

from typing import TYPE_CHECKING, Any

from stephttp import step
from stephttp._client.api_calls import CheckpointRun
from stephttp._client.api_result import APIResult
from stephttp._client.new_run import CheckpointNewRunRequest, NewAPIRunData, RunEvent
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.conversion import Converter
from stephttp._core.endpoint_options import (
    AsyncRequest,
    AsyncResponse,
    AsyncResponseCustom,
    AsyncResponseRedirect,
    AsyncResponseToken,
    FnOpts,
)
from stephttp._core.inference import AIAdapter, ModelAdapter
from stephttp._core.tool_types import Event, FetchResponse, Signal
from stephttp._run.endpoint import configure, update_omit_response_body
from stephttp._run.logging import ReplayFilter, ReplayLogger, logger
from stephttp._version import __version__
from stephttp._wire.http import Request, Response
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Timing, Userland
from stephttp._wire.progress import WaitingRun
from stephttp.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    CannotWaitError,
    ConfigurationError,
    DivergenceError,
    NestedStepError,
    NonRetriableError,
    OutsideRunError,
    ResultTimeoutError,
    RetryAfterError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    SignalNotAwaitedError,
    StepError,
    StepErrorGroup,
    StephttpError,
    StepResultError,
    StepTimeoutError,
    Suspended,
    UncommittedStepError,
    UsageError,
)
from stephttp.middleware import Middleware
from stephttp.options import DEFAULT_RESTORE_HEADERS
from stephttp.provider import Provider, setup
from stephttp.setup_options import OptionalSetupOpts, SetupOpts

if TYPE_CHECKING:
    from stephttp import stream
    from stephttp._client.api_client import APIClient
    from stephttp._client.run_calls import RunInfo
    from stephttp._client.run_results import RunResult
    from stephttp._core.endpoint_limits import Concurrency, Throttle
    from stephttp._run.current_run import CurrentRun, current_run
    from stephttp._run.step_key import idempotency_key
    from stephttp.asgi import ASGIMiddleware
    from stephttp.wsgi import WSGIMiddleware

# A program needs one of the two adapters, and only those of asyncio need asyncio. Most programs do
# not need the others.
_LATER = {
    "APIClient": "stephttp._client.api_client",
    "CurrentRun": "stephttp._run.current_run",
    "current_run": "stephttp._run.current_run",
    "ASGIMiddleware": "stephttp.asgi",
    "RunInfo": "stephttp._client.run_calls",
    "RunResult": "stephttp._client.run_results",
    "Concurrency": "stephttp._core.endpoint_limits",
    "Throttle": "stephttp._core.endpoint_limits",
    "WSGIMiddleware": "stephttp.wsgi",
    "idempotency_key": "stephttp._run.step_key",
    "stream": "stephttp.stream",
}

__all__ = [  # noqa: RUF022  (grouped)
    # use it
    "setup",
    "Provider",
    "ASGIMiddleware",
    "WSGIMiddleware",
    "step",
    "stream",
    "idempotency_key",
    "current_run",
    "CurrentRun",
    # runs from outside
    "RunInfo",
    "RunResult",
    # options
    "configure",
    "update_omit_response_body",
    "FnOpts",
    "Checkpointing",
    "Concurrency",
    "Throttle",
    "Converter",
    "SetupOpts",
    "OptionalSetupOpts",
    "DEFAULT_RESTORE_HEADERS",
    "AIAdapter",
    "ModelAdapter",
    # responses of requests that wait
    "AsyncResponse",
    "AsyncResponseRedirect",
    "AsyncResponseToken",
    "AsyncResponseCustom",
    "AsyncRequest",
    "WaitingRun",
    "Request",
    "Response",
    # events, signals, and what tools return
    "Event",
    "Signal",
    "FetchResponse",
    # errors
    "StephttpError",
    "StepError",
    "StepTimeoutError",
    "StepErrorGroup",
    "NonRetriableError",
    "RetryAfterError",
    "ConfigurationError",
    "UncommittedStepError",
    "UsageError",
    "OutsideRunError",
    "NestedStepError",
    "CannotWaitError",
    "StepResultError",
    "DivergenceError",
    "APIError",
    "APIConnectionError",
    "APITimeoutError",
    "APIStatusError",
    "RunNotFoundError",
    "SignalNotAwaitedError",
    "RunFailedError",
    "RunCancelledError",
    "ResultTimeoutError",
    "Suspended",
    # middleware, logging
    "Middleware",
    "logger",
    "ReplayLogger",
    "ReplayFilter",
    # the checkpoint API by hand
    "APIClient",
    "APIResult",
    "CheckpointRun",
    "CheckpointNewRunRequest",
    "NewAPIRunData",
    "RunEvent",
    "Op",
    "OpCode",
    "Timing",
    "Userland",
    "ErrorInfo",
    # its version
    "__version__",
]

if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_LATER[name])
        value = globals()[name] = module if name == "stream" else getattr(module, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
