"""The dashboard: pages for people, made on the server. See `docs/dashboard.md`.

`ROUTES` answer requests of an application whose state holds a `Dashboard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stephttp.engine.dashboard.assets import templates
from stephttp.engine.dashboard.page_request import Dashboard
from stephttp.engine.dashboard.routes import ROUTES
from stephttp.engine.dashboard.sessions import Access

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

__all__ = ["ROUTES", "Dashboard", "dashboard"]


def dashboard(engine: Engine) -> Dashboard:
    """The dashboard of an engine.

    Raises:
        ConfigurationError: its password cannot be used.
    """
    return Dashboard(Access(engine), templates())
