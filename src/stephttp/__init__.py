"""Durable HTTP endpoints for Python.

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")
app = provider.asgi(app)
"""

from stephttp import step
from stephttp._core.checkpointing import Checkpointing
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
    StepError,
    StephttpError,
    StepResultError,
    Suspended,
    UsageError,
)
from stephttp.provider import Provider, configure, setup

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "ASGIMiddleware",
    "CannotWaitError",
    "Checkpointing",
    "ConfigurationError",
    "NestedStepError",
    "NonRetriableError",
    "OutsideRunError",
    "Provider",
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
