"""The dashboard: HTML pages, rendered on the server. See `docs/dashboard.md`.

Here belong pages, forms, sessions and how values look on a page. What pages show is read by
`engine.reading`; what forms do is a method of `Engine`. `ROUTES` answer the requests of an
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
