"""Whose an idempotency key is: which headers and cookies tell callers apart (docs/design.md 3.7).

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

from msgspec import Struct
from msgspec.structs import replace

from stephttp._wire.http import Headers, Request, cookies_of
from stephttp.errors import UsageError

CallerOf = Callable[[Request], str | None]
"""Says who sent a request; `None` or nothing: that is not known."""

_SECRETS = re.compile(
    rb"authorization|token|x-token|(?:.*-)?(?:"
    rb"(?:access|api|auth|bearer|functions|security|session|subscription|user)-?(?:key|token)|"
    rb"(?:id|private|vault)-?token|(?:session-?|s)id|session|auth|jwt|assertion|secret)"
)
"""Headers that others cannot know: they tell one caller from all others."""

_IDENTITIES = frozenset(
    {
        # Client certificates, by the proxies that ask for them.
        b"cf-client-cert-sha256", b"client-cert", b"ssl-client-cert", b"ssl-client-subject-dn",
        b"x-amzn-mtls-clientcert", b"x-amzn-mtls-clientcert-leaf",
        b"x-amzn-mtls-clientcert-subject", b"x-arr-clientcert", b"x-client-cert",
        b"x-client-certificate", b"x-client-dn", b"x-client-s-dn", b"x-forwarded-client-cert",
        b"x-forwarded-ssl-client-cert", b"x-forwarded-tls-client-cert",
        b"x-forwarded-tls-client-cert-info", b"x-ssl-cert", b"x-ssl-client-cert",
        b"x-ssl-client-dn", b"x-ssl-client-fingerprint", b"x-ssl-client-s-dn", b"x-ssl-client-sha1",
        b"x-ssl-client-subject", b"x-ssl-client-subject-dn", b"x-tls-client-cert",
        b"x-tls-client-dn",
        # Users, by the proxies that log them in.
        b"cf-access-authenticated-user-email", b"remote-email", b"remote-user",
        b"tailscale-user-login", b"x-account-id", b"x-amzn-oidc-identity",
        b"x-apigateway-api-userinfo", b"x-auth-request-email", b"x-auth-request-user",
        b"x-authenticated-user", b"x-authentik-uid", b"x-authentik-username", b"x-client-id",
        b"x-consumer-id", b"x-credential-identifier", b"x-endpoint-api-userinfo",
        b"x-forwarded-email", b"x-forwarded-user", b"x-goog-authenticated-user-email",
        b"x-goog-authenticated-user-id", b"x-ms-client-principal-id", b"x-ms-client-principal-name",
        b"x-org-id", b"x-pomerium-claim-sub", b"x-remote-user", b"x-tenant-id", b"x-user",
        b"x-user-email", b"x-user-id", b"x-userinfo", b"x-vouch-user", b"x-webauth-user",
    }
)  # fmt: skip
"""Headers that say who sent a request. Others may know them, so they do not stand alone."""

_OF_TOOLS = re.compile(
    # Statistics and chats that have sessions, too.
    r"_hj[a-z]+(?:_\d+)?$|ai_(?:user|session)$|_parsely_(?:session|visitor)$|optimizely|_pin_unauth$|"
    r"intercom-(?:id|session|device-id)-|(?:mp_.*_mixpanel|ph_.*_posthog)$|"
    # Balancers, which may be named after what is behind them.
    r"bigipserver|"
    # Tokens of forms, which change from page to page.
    r".*(?:csrf|xsrf)"
)
"""Names of cookies that are not the application's, or change with each page, whatever else they
look like."""
_PASSING = re.compile(
    # Statistics and advertisements.
    r"_ga(?:_[a-z0-9]+)?$|_gaexp|_gid$|_gat(?:_|$)|_gcl_|_gac_|_dc_gtm|__ga|__gpi|__utm|_fb[pc]$|"
    r"_pk_|mtm_|ajs_|mp_optout|amp_(?:mktg_)?[0-9a-f]{6,}|amplitude_|_cl[cs]k$|_uet[sv]id|_tt_enable|"
    r"_ttp$|ttcsid|_pin_|_scid|_rdt_|__hs|hubspotutk|_mkto_|_dd_s$|plausible_|_ym_|__kla_|_vwo_|_vis_opt|"
    # Balancers, and what tells people from machines.
    r"aws[ae]lb|gclb$|arraffinity|serverid$|route$|__cf|cf_(?:clearance|chl|ob_|use_ob)|_cfuvid$|"
    r"ak_bm|bm_[a-z]{1,3}$|_abck$|incap_|visid_|nlbi_|reese84|datadome|_px(?:\d|hd|vid|ff|_|$)|"
    # Consent.
    r"optanon|cookieconsent|cookielaw|cookieyes|euconsent"
)
"""The same for names that an application may have for the cookie of a session."""
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
_LIKE_SESSIONS = re.compile(
    r"sess|auth(?!or(?!i[sz]))|token|jwt|remember|identity|(?<![a-z])sid(?![a-z])"
)
"""What else such names have in them."""
_SECRET_LENGTH = 16
"""Characters that a cookie's value must have to be one that cannot be guessed."""
_ENDED = re.compile(
    r"\s*(?:max-age\s*=\s*(?:-\d+|0+)\s*|expires\s*=.*(?:\b(?:19\d\d|20[01]\d)\b|-70\b).*)",
    re.IGNORECASE,
)
"""Attributes by which an answer takes a cookie back."""
_EMPTY = frozenset({"", '""', "deleted", "null"})
"""Values of cookies that open nothing."""


class Caller(Struct, frozen=True):
    """What tells one caller from others."""

    parts: tuple[str, ...]
    """All that says who it is."""
    proven: bool
    """Whether a secret is among that, and not only what any caller may have, such as `lang=en`."""

    @property
    def text(self) -> str:
        """All parts as one text; empty: nothing says who it is."""
        return "\n".join(self.parts)


def caller_of(request: Request, known: str = "", key_header: str = "") -> Caller:
    """Return all that says who sent a request.

    Credentials in headers count, and the cookies of sessions, by their names. Many callers may
    share a key of an API or what the server knows of a proxy, so beside those every cookie counts
    that is long enough to be a secret. Where there is no secret at all, any cookie may be the
    session's, so all of them count but those that are known to be something else.

    Args:
        request: its body is not looked at.
        known: what the server itself knows of the caller, such as its certificate.
        key_header: the header that carries the idempotency key, which says nothing of its caller.
    """
    own = key_header.lower().encode()
    headers = [one for one in request.headers if one[0] != own and _counts(one[0])]
    cookies = [one for one in cookies_of(request.headers) if not _passes(*one)]
    found = sorted(f"{name.decode()}: {value.decode('latin-1')}" for name, value in headers)
    if known:
        found.append(f"server: {known}")
    personal = any(_is_personal(*one) for one in headers) or any(_opens(*one) for one in cookies)
    proven = personal or bool(known) or any(_is_secret(*one) for one in headers)
    if proven:
        cookies = [
            (name, value)
            for name, value in cookies
            if _is_session(name) or (not personal and len(value) >= _SECRET_LENGTH)
        ]
    found += sorted(f"cookie: {name}={value}" for name, value in cookies)
    return Caller(tuple(found), proven)


def after(request: Request, answer: Headers) -> Request:
    """Return a request as its caller would send it again, who has the cookies of its answer."""
    cookies = dict(cookies_of(request.headers))
    for name, value in _set_by(answer).items():
        if value is None:
            cookies.pop(name, None)
        else:
            cookies[name] = value
    line = "; ".join(f"{name}={value}" for name, value in cookies.items())
    others = [one for one in request.headers if one[0] != b"cookie"]
    return replace(request, headers=[*others, (b"cookie", line.encode("latin-1", "replace"))])


def later_caller(
    request: Request, answer: Headers, known: str = "", key_header: str = "", *, whole: bool
) -> str:
    """Return who the caller of a request is from its answer on, as `Caller.text`; empty if that is
    no other than before, or if others may pass for it.

    Only a caller who has all that the first one had, or a session that this answer opens, may get
    the answer. One whose session ends by it is not known any more.

    Args:
        known: see `caller_of`, as `key_header`.
        whole: whether the request is all that its caller sent, and not what is restored of that.
    """
    cookies = _set_by(answer).items()
    before = caller_of(request, known, key_header)
    if any(value is None and _may_end(name, before) for name, value in cookies):
        return ""
    later = caller_of(after(request, answer), known, key_header)
    opened = any(
        value and not _passes(name, value) and _opens(name, value) for name, value in cookies
    )
    if later == before or not (opened or (whole and {*before.parts} <= {*later.parts})):
        return ""
    return later.text


def host_of(request: Request) -> str:
    """Return the host that a request was sent to: one application may serve tenants by it.

    The caller may have written what a proxy should have, so that counts beside the host only.
    """
    return f"{request.header(b'host')} {request.header(b'x-forwarded-host')}".strip().lower()


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


def scope_of(domain: str, endpoint: str, whose: str = "", host: str = "") -> str:
    """Return the scope of a key: the API, the endpoint if it has an id, and whose the key is.

    Args:
        whose: may be secret, so it is hashed; empty: the key is any caller's.
        host: see `host_of`; empty: the key is the same for all.
    """
    text = f"host: {host}\n{whose}" if host else whose
    hashed = sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else ""
    return "\n".join((domain, endpoint, hashed))


def _set_by(answer: Headers) -> dict[str, str | None]:
    """Return the cookies that an answer sets; `None`: that it takes back."""
    found: dict[str, str | None] = {}
    for header, line in answer:
        if header.lower() == b"set-cookie":
            pair, *attributes = line.decode("latin-1").split(";")
            name, _, value = (part.strip() for part in pair.partition("="))
            ended = value.lower() in _EMPTY or any(map(_ENDED.fullmatch, attributes))
            found[name] = None if ended else value
    return found


def _may_end(name: str, caller: Caller) -> bool:
    """Whether an answer that takes a cookie back may end the session of its caller by that."""
    counted = any(part.startswith(f"cookie: {name}=") for part in caller.parts)
    return counted or _is_session(name)


def _counts(header: bytes) -> bool:
    """Whether a header may say who sent a request, by its name."""
    return header in _IDENTITIES or _may_be_secret(header)


def _may_be_secret(header: bytes) -> bool:
    return _SECRETS.fullmatch(header) is not None and b"csrf" not in header


def _is_secret(name: bytes, value: bytes) -> bool:
    """Whether a header tells callers from others. A password may be a whole site's."""
    return _may_be_secret(name) and value[:6].lower() != b"basic "


def _is_personal(name: bytes, value: bytes) -> bool:
    """Whether a header certainly is one caller's, and not a key of all who use an application."""
    return name == b"authorization" and value[:7].lower() == b"bearer "


def _passes(name: str, value: str) -> bool:
    """Whether a cookie is known to be something else than a credential."""
    plain = _PREFIX.sub("", name.lower())
    if _OF_TOOLS.match(plain):
        return True
    return _PASSING.match(plain) is not None and not _opens(name, value)


def _is_session(name: str) -> bool:
    """Whether a cookie may be that of a session, by its name."""
    return _LIKE_SESSIONS.search(name.lower()) is not None


def _opens(name: str, value: str) -> bool:
    """Whether a cookie is certainly that of a session, and not a mark such as `remember_me=1`."""
    default = _PREFIX.sub("", name.lower()) in _SESSIONS
    return bool(value) and (default or (_is_session(name) and len(value) >= _SECRET_LENGTH))
