"""One request for a page: who makes it, what it brings, and how it is answered."""

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

from stephttp.engine.dashboard.sessions import CSRF_FIELD, CSRF_HEADER, Access, Session
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
    # With none at all browsers would not tell either where a form comes from.
    "referrer-policy": "same-origin",
}
_MOST_FIELDS = 1000


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What all visits share."""

    access: Access
    templates: jinja2.Environment


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that may be answered.

    Attributes:
        session: `None` only on pages that need none.
        form: fields of a form that was sent, each with all its values.
        seen: `Changes.published`, before anything was read.
    """

    request: Request
    dashboard: Dashboard
    session: Session | None
    form: Mapping[str, list[str]]
    seen: int

    @property
    def engine(self) -> Engine:
        """The engine whose pages these are."""
        return engine_of(self.request)

    @property
    def client(self) -> str:
        """Address of the browser."""
        return self.request.client.host if self.request.client else ""

    @property
    def run_id(self) -> str:
        """The run that the address names.

        Raises:
            Refused: it is no id of a run.
        """
        return parse_run_id(self.request.path_params["run"])

    def field(self, name: str) -> str:
        """A field of the form that was sent; empty if it is not there."""
        return self.form.get(name, [""])[-1]

    def page(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page."""
        access = self.dashboard.access
        context |= {
            "request_path": self.request.url.path,
            "request_url": str(self.request.url.replace(scheme="", netloc="")),
            "csrf": access.csrf_token(self.session),
            "logged_in": access.needs_login and self.session is not None,
            "api_is_open": not self.engine.settings.signing_keys,
            "now_ms": self.engine.clock.now_ms(),
            "version": VERSION,
            "seen": self.seen,
        }
        html = self.dashboard.templates.get_template(template).render(context)
        return HTMLResponse(html, status, _HEADERS)

    def failure(self, status: int, title: str, message: str) -> Response:
        """A page that says what cannot be done, and why."""
        return self.page("failure.html", status, title=title, message=message)

    def go(self, path: str, **query: str | int) -> Response:
        """Send the browser to a page, with a notice perhaps."""
        target = f"{path}?{urlencode(query)}" if query else path
        return RedirectResponse(target, 303)


Page = Callable[[Visit], Awaitable[Response]]


def page(handler: Page, *, public: bool = False) -> Callable[[Request], Awaitable[Response]]:
    """A route's handler: lets those through that may see the page.

    Args:
        handler: makes the page.
        public: whether it needs no login.
    """

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        dashboard: Dashboard = request.app.state.dashboard
        access = dashboard.access
        seen = engine_of(request).changes.published
        visit = Visit(request, dashboard, None, {}, seen)
        try:
            if reason := access.why_refused(request):
                log_refusal(request, 403, reason, logging.WARNING)
                return visit.failure(403, "Not from there", reason)
            session = await access.session(request)
            if session is None and not public:
                return _to_login(request)
            visit = replace(visit, session=session)
            if request.method == "POST":
                form = await _read_form(request, visit.engine.settings.max_body)
                visit = replace(visit, form=form)
                given = request.headers.get(CSRF_HEADER) or visit.field(CSRF_FIELD)
                if not access.is_csrf_token(given, session):
                    reason = "the form's token is missing or of another session"
                    log_refusal(request, 403, reason, logging.WARNING)
                    message = "This form is too old, or not ours. Load the page again."
                    return visit.failure(403, "Not accepted", message)
            return await handler(visit)
        except Refused as error:
            title = "Not found" if error.status == 404 else "Not possible"
            return visit.failure(error.status, title, str(error))
        except (sqlite3.Error, StoreClosedError) as error:
            log_refusal(request, 503, str(error), logging.ERROR)
            return visit.failure(503, "The database does not answer", str(error))

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
