"""The dashboard's routes; see `access` for who gets an answer."""

from __future__ import annotations

from starlette.routing import Route

from stephttp.engine.dashboard import assets, live, orders, pages
from stephttp.engine.dashboard.visits import Page, page


def _shown(path: str, handler: Page) -> Route:
    return Route(path, page(handler), methods=["GET"])


def _done(path: str, handler: Page) -> Route:
    return Route(path, page(handler), methods=["POST"])


ROUTES = [
    _shown("/", pages.overview),
    _shown("/runs", pages.runs),
    _done("/runs/bulk", orders.bulk),
    _shown("/runs/{run}", pages.run),
    _shown("/runs/{run}/raw/{part}", pages.raw),
    _done("/runs/{run}/cancel", orders.cancel),
    _done("/runs/{run}/rerun", orders.rerun),
    _done("/runs/{run}/rerun-from", orders.rerun_from),
    _done("/runs/{run}/resume", orders.resume),
    _done("/runs/{run}/send", orders.send_to_run),
    _shown("/events", pages.events),
    _shown("/events/new", pages.new_event),
    _done("/events/new", orders.send),
    _shown("/events/{event}", pages.event),
    _shown("/apps", pages.apps),
    _shown("/live", live.live),
    Route("/login", page(orders.login_page, public=True), methods=["GET"]),
    Route("/login", page(orders.login, public=True), methods=["POST"]),
    _done("/logout", orders.logout),
    Route("/static/{name:path}", assets.serve, methods=["GET"]),
]
