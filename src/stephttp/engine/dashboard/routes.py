"""The dashboard's routes; see `access` for who gets an answer."""

from __future__ import annotations

from starlette.routing import Route

from stephttp.engine.dashboard import assets, forms, pages, updates
from stephttp.engine.dashboard.page_request import Page, page


def _shown(path: str, handler: Page) -> Route:
    return Route(path, page(handler), methods=["GET"])


def _done(path: str, handler: Page) -> Route:
    return Route(path, page(handler), methods=["POST"])


ROUTES = [
    _shown("/", pages.overview),
    _shown("/runs", pages.runs),
    _done("/runs/bulk", forms.bulk),
    _shown("/runs/{run}", pages.run),
    _shown("/runs/{run}/raw/{part}", pages.raw),
    _done("/runs/{run}/cancel", forms.cancel),
    _done("/runs/{run}/rerun", forms.rerun),
    _done("/runs/{run}/rerun-from", forms.rerun_from),
    _done("/runs/{run}/resume", forms.resume),
    _done("/runs/{run}/send", forms.send_to_run),
    _shown("/events", pages.events),
    _shown("/events/new", pages.new_event),
    _done("/events/new", forms.send),
    _shown("/events/{event}", pages.event),
    _shown("/apps", pages.apps),
    _shown("/live", updates.live),
    Route("/login", page(forms.login_page, public=True), methods=["GET"]),
    Route("/login", page(forms.login, public=True), methods=["POST"]),
    _done("/logout", forms.logout),
    Route("/static/{name:path}", assets.serve, methods=["GET"]),
]
