"""The embedded engine: remembers steps, waits, and calls endpoints again (`stephttp[engine]`).

`create_app` makes the whole server as one ASGI application; `Engine` is the same without HTTP.
"""

from __future__ import annotations

from stephttp.engine.app import create_app
from stephttp.engine.engine import Engine
from stephttp.engine.model.clock import Clock, SystemClock, VirtualClock
from stephttp.engine.model.settings import Backoff, Settings

__all__ = [
    "Backoff",
    "Clock",
    "Engine",
    "Settings",
    "SystemClock",
    "VirtualClock",
    "create_app",
]
