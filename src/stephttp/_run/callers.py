"""Whose an idempotency key is: what tells callers apart (docs/design.md 3.7).

Two callers who chose the same key must not see each other's answers, and one caller who repeats a
request must be known again. So all that gives access counts, and what changes from one request of
a caller to the next does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from inspect import iscoroutine
from typing import Any

from msgspec.structs import replace

from stephttp._wire.http import Headers, Request, cookies_of
from stephttp.errors import UsageError

CallerOf = Callable[[Request], str | None]
"""Says who sent a request; `None` or nothing: that is not known."""

_SECRETS = frozenset(
    {
        b"api-key",
        b"apikey",
        b"authorization",
        b"x-access-token",
        b"x-api-key",
        b"x-api-token",
        b"x-auth-token",
        b"x-session-id",
        b"x-session-token",
        b"x-user-token",
    }
)
"""Headers that others cannot know: they tell one caller from all others."""

_IDENTITIES = frozenset(
    {
        # Client certificates, by the proxies that ask for them.
        b"cf-client-cert-sha256",
        b"client-cert",
        b"ssl-client-cert",
        b"ssl-client-subject-dn",
        b"x-amzn-mtls-clientcert",
        b"x-amzn-mtls-clientcert-leaf",
        b"x-amzn-mtls-clientcert-subject",
        b"x-arr-clientcert",
        b"x-client-cert",
        b"x-client-certificate",
        b"x-client-dn",
        b"x-client-s-dn",
        b"x-forwarded-client-cert",
        b"x-forwarded-ssl-client-cert",
        b"x-forwarded-tls-client-cert",
        b"x-forwarded-tls-client-cert-info",
        b"x-ssl-cert",
        b"x-ssl-client-cert",
        b"x-ssl-client-dn",
        b"x-ssl-client-fingerprint",
        b"x-ssl-client-s-dn",
        b"x-ssl-client-sha1",
        b"x-ssl-client-subject",
        b"x-ssl-client-subject-dn",
        b"x-tls-client-cert",
        b"x-tls-client-dn",
        # Users, by the proxies that log them in.
        b"cf-access-authenticated-user-email",
        b"remote-email",
        b"remote-user",
        b"tailscale-user-login",
        b"x-amzn-oidc-identity",
        b"x-auth-request-email",
        b"x-auth-request-user",
        b"x-authenticated-user",
        b"x-authentik-uid",
        b"x-authentik-username",
        b"x-consumer-id",
        b"x-credential-identifier",
        b"x-forwarded-email",
        b"x-forwarded-user",
        b"x-goog-authenticated-user-email",
        b"x-goog-authenticated-user-id",
        b"x-ms-client-principal-id",
        b"x-ms-client-principal-name",
        b"x-pomerium-claim-sub",
        b"x-remote-user",
        b"x-user",
        b"x-user-email",
        b"x-user-id",
        b"x-webauth-user",
    }
)
"""Headers that say who sent a request. Others may know them, so they do not stand alone."""

_PASSING = re.compile(
    # Statistics and advertisements.
    r"_ga|_gid$|_gat|_gcl|_gac|_dc_gtm|__ga|__gpi|__utm|_fb[pc]$|_pk_|mtm_|_hj|ajs_|mp_|amp_|"
    r"amplitude|_cl[cs]k$|_uet|_tt_|_ttp$|ttcsid|_pin_|_scid|_rdt_|__hs|hubspotutk|_mkto|"
    r"optimizely|intercom-|_dd_s|ph_|plausible|ai_(?:user|session)$|_parsely|_ym_|__kla|_vwo|_vis_|"
    # Balancers, and what tells people from machines.
    r"aws[ae]lb|gclb$|arraffinity|bigipserver|serverid|route$|__cf|cf_|_cfuvid|ak_bm|bm_|_abck|"
    r"incap_|visid_|nlbi_|reese84|datadome|_px|"
    # Consent.
    r"optanon|cookieconsent|cookielaw|cookieyes|euconsent|"
    # Tokens of forms, which change from page to page.
    r".*(?:csrf|xsrf)"
)
"""Beginnings of the names of cookies that are not the application's, or change with each page."""
_PREFIX = re.compile(r"__(?:host|secure)-")
_SESSIONS = frozenset(
    {
        "__session",
        "connect.sid",
        "fastapiusersauth",
        "jsessionid",
        "laravel_session",
        "phpsessid",
        "quart_auth",
        "session",
        "session_id",
        "sessionid",
        "sid",
    }
)
"""Names that frameworks give the cookies of their sessions, by default."""
_LIKE_SESSIONS = re.compile(r"sess|auth(?!or)|token|jwt|remember|identity|(?<![a-z])sid(?![a-z])")
"""What else such names have in them."""
_ENDED = re.compile(r"\s*(?:max-age\s*=\s*(?:-\d+|0+)\s*|expires\s*=.*\b1970\b.*)", re.IGNORECASE)
"""Attributes by which an answer takes a cookie back."""
_SECRET_LENGTH = 16
"""Characters that a cookie's value must have to be one that cannot be guessed."""


def caller_of(request: Request, known: str = "") -> str:
    """Return all that says who sent a request, as one text; empty if nothing does.

    Credentials in headers count, and the cookies of sessions, by their names. Where there is no
    secret among them, any cookie may be the session's, so all of them count but those that are
    known to be something else.

    Args:
        request: its body is not looked at.
        known: what the server itself knows of the caller, such as its certificate.
    """
    headers = [one for one in request.headers if one[0] in _SECRETS or one[0] in _IDENTITIES]
    found = sorted(map(_shown, headers))
    if known:
        found.append(f"server: {known}")
    cookies = [(name, value) for name, value in cookies_of(request.headers) if not _passes(name)]
    if known or any(_is_secret(*one) for one in headers) or any(_opens(*one) for one in cookies):
        cookies = [(name, value) for name, value in cookies if _is_session(name)]
    return "\n".join([*found, *sorted(f"cookie: {name}={value}" for name, value in cookies)])


def after(request: Request, answer: Headers) -> Request:
    """Return a request as its caller would send it again, who has the cookies of its answer."""
    cookies = dict(cookies_of(request.headers))
    for name, value in answer:
        if name.lower() == b"set-cookie":
            pair, *attributes = value.decode("latin-1").split(";")
            key, _, text = (part.strip() for part in pair.partition("="))
            if any(_ENDED.fullmatch(attribute) for attribute in attributes):
                cookies.pop(key, None)
            else:
                cookies[key] = text
    line = "; ".join(f"{name}={value}" for name, value in cookies.items())
    others = [one for one in request.headers if one[0] != b"cookie"]
    return replace(request, headers=[*others, (b"cookie", line.encode("latin-1", "replace"))])


def said_by(scope: CallerOf, request: Request) -> str:
    """Return who sent a request, by a function of the application.

    Raises:
        UsageError: it returned no text.
    """
    call: Callable[[Request], Any] = scope
    who = call(request)
    if who is not None and not isinstance(who, str):
        if iscoroutine(who):
            who.close()
        raise UsageError(f"idempotency_scope must return a text or None, not {type(who).__name__}")
    return str(who or "")


def scope_of(domain: str, endpoint: str, whose: str = "") -> str:
    """Return the scope of a key: the API, the endpoint if it has an id, and whose the key is.

    Args:
        whose: may be secret, so it is hashed; empty: the key is any caller's.
    """
    hashed = sha256(whose.encode("utf-8", "surrogatepass")).hexdigest() if whose else ""
    return "\n".join((domain, endpoint, hashed))


def _shown(header: tuple[bytes, bytes]) -> str:
    name, value = header[0].decode(), header[1].decode("latin-1")
    return value if name == "authorization" else f"{name}: {value}"


def _is_secret(name: bytes, value: bytes) -> bool:
    """Whether a header tells one caller from all others. A password may be a whole site's."""
    return name in _SECRETS and value[:6].lower() != b"basic "


def _passes(name: str) -> bool:
    return _PASSING.match(_PREFIX.sub("", name.lower())) is not None


def _is_session(name: str) -> bool:
    return _LIKE_SESSIONS.search(name.lower()) is not None


def _opens(name: str, value: str) -> bool:
    """Whether a cookie is certainly that of a session, and not a mark such as `remember_me=1`."""
    default = _PREFIX.sub("", name.lower()) in _SESSIONS
    return bool(value) and (default or (_is_session(name) and len(value) >= _SECRET_LENGTH))
