"""Durable HTTP endpoints for Python.

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")
app = provider.asgi(app)
"""

from stephttp import step
from stephttp._core.adapters import AIAdapter, ModelAdapter
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.values import Event, FetchResponse, Signal
from stephttp._version import __version__
from stephttp.asgi import ASGIMiddleware
from stephttp.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    CannotWaitError,
    ConfigurationError,
    NestedStepError,
    NonRetriableError,
    OutsideRunError,
    RetryAfterError,
    StepError,
    StephttpError,
    StepResultError,
    Suspended,
    UsageError,
)
from stephttp.provider import Provider, configure, setup

__all__ = [
    "AIAdapter",
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "ASGIMiddleware",
    "CannotWaitError",
    "Checkpointing",
    "ConfigurationError",
    "Event",
    "FetchResponse",
    "ModelAdapter",
    "NestedStepError",
    "NonRetriableError",
    "OutsideRunError",
    "Provider",
    "RetryAfterError",
    "Signal",
    "StepError",
    "StepResultError",
    "StephttpError",
    "Suspended",
    "UsageError",
    "__version__",
    "configure",
    "setup",
    "step",
]
