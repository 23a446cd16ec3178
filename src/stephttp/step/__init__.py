"""Step tools for `async def` handlers. `stephttp.sync.step` has the same ones, blocking."""

from stephttp.step._calling import AI as AI  # the reference shows it
from stephttp.step._calling import ai, fetch, invoke, invoke_by_id
from stephttp.step._options import options
from stephttp.step._racing import first, race
from stephttp.step._running import parallel, run, send_event
from stephttp.step._waiting import sleep, sleep_until, wait_for_event, wait_for_signal

__all__ = [
    "ai",
    "fetch",
    "first",
    "invoke",
    "invoke_by_id",
    "options",
    "parallel",
    "race",
    "run",
    "send_event",
    "sleep",
    "sleep_until",
    "wait_for_event",
    "wait_for_signal",
]
