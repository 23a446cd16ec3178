"""One request for a page or a form: who makes it, what it brings, and how it is answered."""

from __future__ import annotations

import functools
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from stephttp.engine.dashboard.sessions import CSRF_FIELD, CSRF_HEADER, Session, Sessions
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.settings import VERSION
from stephttp.engine.store.store import StoreClosedError
from stephttp.engine.web.requests import engine_of, parse_run_id, read_body
from stephttp.engine.web.responses import log_refusal

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "font-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    # With `no-referrer` browsers would not say which site a form comes from, either.
    "referrer-policy": "same-origin",
}
_MOST_FIELDS = 1000


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What all requests share."""

    sessions: Sessions
    templates: jinja2.Environment


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request that may be answered.

    Attributes:
        http: the request as it arrived.
        session: `None` only on pages that need no login.
        form: the fields of a submitted form, each with all its values.
        seen: `Changes.published` before anything was read.
    """

    http: Request
    dashboard: Dashboard
    session: Session | None
    form: Mapping[str, list[str]]
    seen: int

    @property
    def engine(self) -> Engine:
        """The engine that the dashboard belongs to."""
        return engine_of(self.http)

    @property
    def client(self) -> str:
        """The address of the browser."""
        return self.http.client.host if self.http.client else ""

    @property
    def run_id(self) -> str:
        """The run that the path names.

        Raises:
            Refused: this is not the id of a run.
        """
        return parse_run_id(self.http.path_params["run"])

    def field(self, name: str) -> str:
        """Return a field of the submitted form; empty if the form does not have it."""
        return self.form.get(name, [""])[-1]

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """Return a page."""
        sessions = self.dashboard.sessions
        context |= {
            "request_path": self.http.url.path,
            "request_url": str(self.http.url.replace(scheme="", netloc="")),
            "csrf": sessions.csrf_token(self.session),
            "logged_in": sessions.needs_login and self.session is not None,
            "api_is_open": not self.engine.settings.signing_keys,
            "now_ms": self.engine.clock.now_ms(),
            "version": VERSION,
            "seen": self.seen,
        }
        html = self.dashboard.templates.get_template(template).render(context)
        return HTMLResponse(html, status, _HEADERS)

    def failure(self, status: int, title: str, message: str) -> Response:
        """Return a page that says what went wrong."""
        return self.render("failure.html", status, title=title, message=message)

    def redirect(self, path: str, **query: str | int) -> Response:
        """Send the browser to a page, perhaps with a notice."""
        target = f"{path}?{urlencode(query)}" if query else path
        return RedirectResponse(target, 303)


Handler = Callable[[PageRequest], Awaitable[Response]]


def route_handler(
    handler: Handler, *, public: bool = False
) -> Callable[[Request], Awaitable[Response]]:
    """Make the handler of a route, which answers only those who may see the page.

    Args:
        handler: answers them.
        public: whether the page needs no login.
    """

    @functools.wraps(handler)
    async def answer(http: Request) -> Response:
        dashboard: Dashboard = http.app.state.dashboard
        sessions = dashboard.sessions
        seen = engine_of(http).changes.published
        request = PageRequest(http, dashboard, None, {}, seen)
        try:
            if reason := sessions.why_refused(http):
                log_refusal(http, 403, reason, logging.WARNING)
                return request.failure(403, "Not from there", reason)
            session = await sessions.session(http)
            if session is None and not public:
                return _to_login(http)
            request = replace(request, session=session)
            if http.method == "POST":
                form = await _read_form(http, request.engine.settings.max_body)
                request = replace(request, form=form)
                given = http.headers.get(CSRF_HEADER) or request.field(CSRF_FIELD)
                if not sessions.is_csrf_token(given, session):
                    reason = "the form's token is missing or belongs to another session"
                    log_refusal(http, 403, reason, logging.WARNING)
                    message = "This form is too old, or of another engine. Load the page again."
                    return request.failure(403, "Not accepted", message)
            return await handler(request)
        except Refused as error:
            title = "Not found" if error.status == 404 else "Not possible"
            return request.failure(error.status, title, str(error))
        except (sqlite3.Error, StoreClosedError) as error:
            log_refusal(http, 503, str(error), logging.ERROR)
            return request.failure(503, "The database does not answer", str(error))

    return answer


def _to_login(request: Request) -> Response:
    here = str(request.url.replace(scheme="", netloc=""))
    target = "/login" if request.method != "GET" else f"/login?next={quote(here, safe='/')}"
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": target})
    return RedirectResponse(target, 303)


async def _read_form(request: Request, limit: int) -> dict[str, list[str]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        return {}
    body = await read_body(request, limit)
    try:
        text = body.decode("ascii")
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise Refused("form: it cannot be read") from None
