"""Tests of durable endpoints: the real engine in the process of the test, on a clock that it moves.

from stephttp.testing import DurableClient

with DurableClient(app) as client:
    call = client.post("/orders", json=ORDER)
    call.until_waiting()
    client.send_event("order/packed", {"id": "o1"})
    assert call.response.status_code == 201
"""

import sys

from stephttp.testing.always_replay import ReplayError
from stephttp.testing.async_call import AsyncCall
from stephttp.testing.async_client import AsyncDurableClient
from stephttp.testing.blocking_call import Call
from stephttp.testing.blocking_client import DurableClient
from stephttp.testing.crash_runs import CrashError, CrashReport, crash_everywhere
from stephttp.testing.crashes import Boundary
from stephttp.testing.findings import Finding, Place
from stephttp.testing.history import History
from stephttp.testing.passing_time import Stuck
from stephttp.testing.recorded import (
    RecordedError,
    RecordedEvent,
    RecordedRun,
    RecordedStep,
    RecordedWait,
)
from stephttp.testing.recorded_calls import RecordedCall
from stephttp.testing.replay import replay
from stephttp.testing.stubs import Stub, UrlStub
from stephttp.testing.unit_runs import Unit, unit
from stephttp.testing.verdicts import Replay

__all__ = [
    "AsyncCall",
    "AsyncDurableClient",
    "Boundary",
    "Call",
    "CrashError",
    "CrashReport",
    "DurableClient",
    "Finding",
    "History",
    "Place",
    "RecordedCall",
    "RecordedError",
    "RecordedEvent",
    "RecordedRun",
    "RecordedStep",
    "RecordedWait",
    "Replay",
    "ReplayError",
    "Stub",
    "Stuck",
    "Unit",
    "UrlStub",
    "crash_everywhere",
    "replay",
    "unit",
]

__tracebackhide__ = True


def _hide() -> None:
    """Let pytest leave the frames of this package out of the tracebacks of tests."""
    for name, module in sys.modules.items():
        if name.startswith(f"{__name__}."):
            vars(module)["__tracebackhide__"] = True


_hide()
