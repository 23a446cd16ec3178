"""Links to results that a page of another site lets a browser open: no cookies for them
(docs/threat-model.md). Pure.

The result may set cookies, such as that of a session: an attacker's own, whose link would then log
in everyone who opens it there (docs/threat-model.md). So it sets none in a browser that another
site has sent to `result_path`, unless this browser has made the run: identity providers send
browsers to the API itself.
"""

from __future__ import annotations

from stephttp._wire.http import Headers, Request, Response, cookies_of
from stephttp._wire.result_address import WITHOUT_COOKIES, reference, turn_of, without_cookies

_LIFETIME = 3600
"""Seconds for which a browser remembers that it began a run."""


def comes_from_elsewhere(request: Request) -> bool:
    """Return whether a page of another site has sent a browser here."""
    site, mode = request.header(b"sec-fetch-site"), request.header(b"sec-fetch-mode")
    return site == "cross-site" and mode == "navigate"


def remembered(request: Request, run_id: str, path: str) -> Headers:
    """Return what lets a browser remember that it began a run, if it has to.

    Args:
        request: that has begun the run.
        path: where the result is.
    """
    if not comes_from_elsewhere(request):
        return []
    cookie = f"{_name(run_id)}=1; Path={path}; Max-Age={_LIFETIME}; HttpOnly; SameSite=Lax"
    return [(b"set-cookie", cookie.encode())]


def detour(request: Request, run_id: str) -> Response | None:
    """Return what sends a browser to the link without cookies, if it came from elsewhere."""
    if not comes_from_elsewhere(request) or without_cookies(request.query):
        return None
    if any(name == _name(run_id) for name, _ in cookies_of(request.headers)):
        return None
    query = f"{request.query}&{WITHOUT_COOKIES}"
    location = reference(request.path, query, turn_of(request.query))
    headers = [(b"location", location.encode()), (b"content-length", b"0")]
    return Response(303, [*headers, (b"cache-control", b"no-store")], b"")


def _name(run_id: str) -> str:
    return f"stephttp-{run_id}"
