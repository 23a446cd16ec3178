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

from msgspec import Struct
from msgspec.structs import replace

from stephttp._run.credentials import (
    SECRET_LENGTH,
    counts,
    is_personal,
    is_secret,
    is_session,
    opens,
    passes,
)
from stephttp._wire.http import Headers, Request, cookies_of
from stephttp.errors import UsageError

CallerOf = Callable[[Request], str | None]
"""Says who sent a request; `None` or nothing: that is not known."""

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
    headers = [one for one in request.headers if one[0] != own and counts(one[0])]
    cookies = [one for one in cookies_of(request.headers) if not passes(*one)]
    found = sorted(f"{name.decode()}: {value.decode('latin-1')}" for name, value in headers)
    if known:
        found.append(f"server: {known}")
    personal = any(is_personal(*one) for one in headers) or any(opens(*one) for one in cookies)
    proven = personal or bool(known) or any(is_secret(*one) for one in headers)
    if proven:
        cookies = [
            (name, value)
            for name, value in cookies
            if is_session(name) or (not personal and len(value) >= SECRET_LENGTH)
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
        value and not passes(name, value) and opens(name, value) for name, value in cookies
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
    return counted or is_session(name)
