"""The dashboard's routes. `sessions` decides who gets an answer."""

from __future__ import annotations

from starlette.routing import Route

from stephttp.engine.dashboard import assets, forms, function_pages, pages, queue_page, updates
from stephttp.engine.dashboard.page_request import Handler, route_handler


def _page(path: str, handler: Handler, *, public: bool = False) -> Route:
    return Route(path, route_handler(handler, public=public), methods=["GET"])


def _form(path: str, handler: Handler, *, public: bool = False) -> Route:
    return Route(path, route_handler(handler, public=public), methods=["POST"])


ROUTES = [
    _page("/", pages.overview),
    _page("/runs", pages.runs),
    _form("/runs/bulk", forms.bulk),
    _page("/runs/{run}", pages.run),
    _page("/runs/{run}/raw/{part}", pages.raw),
    _form("/runs/{run}/cancel", forms.cancel),
    _form("/runs/{run}/rerun", forms.rerun),
    _form("/runs/{run}/rerun-from", forms.rerun_from),
    _form("/runs/{run}/resume", forms.resume),
    _form("/runs/{run}/send", forms.send_to_run),
    _page("/events", pages.events),
    _page("/events/new", pages.new_event),
    _form("/events/new", forms.send),
    _page("/events/{event}", pages.event),
    _page("/apps", pages.apps),
    _page("/functions/{function}", function_pages.function),
    _form("/functions/{function}", function_pages.invoke),
    _form("/functions/{function}/pause", function_pages.pause),
    _form("/functions/{function}/resume", function_pages.resume),
    _page("/queues", queue_page.queues),
    _page("/live", updates.live),
    _page("/login", forms.login_page, public=True),
    _form("/login", forms.login, public=True),
    _form("/logout", forms.logout),
    Route("/static/{name:path}", assets.serve, methods=["GET"]),
]
