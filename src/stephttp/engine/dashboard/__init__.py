"""The dashboard: HTML pages, rendered on the server. See `docs/dashboard.md`.

Pages, forms, sessions and the look of values on a page belong here. `engine.reading` reads what
pages show, and forms call methods of `Engine`. `ROUTES` answer the requests of an
application whose state holds a `Dashboard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stephttp.engine.dashboard.assets import templates
from stephttp.engine.dashboard.page_request import Dashboard
from stephttp.engine.dashboard.routes import ROUTES
from stephttp.engine.dashboard.sessions import Sessions

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

__all__ = ["ROUTES", "Dashboard", "dashboard"]


def dashboard(engine: Engine) -> Dashboard:
    """Make the dashboard of an engine.

    Raises:
        ConfigurationError: the password cannot be used.
    """
    return Dashboard(Sessions(engine), templates())
