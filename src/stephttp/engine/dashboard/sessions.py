"""Who may see the dashboard: login, sessions and their cookie, and the protection of forms against
other sites (CSRF).

Where a login is needed (see `Settings.dashboard_login`), a session is a signed cookie. Its key is
derived from the database's secret and the password, so a session outlives a restart and ends when
the password is changed. The database remembers which sessions were logged out until they would
have expired anyway.

Every form carries a token that is bound to the session, and must come from one of our pages. Where
no login is needed, only this machine gets answers, and `Guard` makes sure that a page of another
site cannot read ours by pointing its own name at this machine.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import jwt
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.dashboard import passwords
from stephttp.engine.live.rate_limit import Buckets
from stephttp.engine.store.sql import QUERIES

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

COOKIE = "stephttp_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
LIFETIME = 12 * 3600
"""Seconds that a session lasts."""

_ALGORITHM = "HS256"
_ISSUER = "stephttp-dashboard"
_ENDED = "dashboard_ended_sessions"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ATTEMPTS_A_SECOND, _ATTEMPTS_AT_ONCE = 1 / 10, 5
_ALL_ATTEMPTS_A_SECOND, _ALL_ATTEMPTS_AT_ONCE = 2.0, 20


@dataclass(frozen=True, slots=True)
class Session:
    """A viewer of pages. `expires_s` is `None` where no login is needed."""

    session_id: str
    expires_s: int | None = None


OPEN = Session("open")
"""The session that all viewers share where no login is needed."""


class Sessions:
    """The sessions of one engine.

    Args:
        engine: its settings say whether a login is needed, and with which password.

    Raises:
        ConfigurationError: see `passwords.as_hash`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        configured = engine.settings.dashboard_password
        self._hash = passwords.as_hash(configured) if configured else ""
        self._client_attempts = Buckets(_ATTEMPTS_A_SECOND, _ATTEMPTS_AT_ONCE)
        # Hashing costs time on purpose: many addresses together must not take all of it.
        self._attempts = Buckets(_ALL_ATTEMPTS_A_SECOND, _ALL_ATTEMPTS_AT_ONCE)
        self._ended: dict[str, int] | None = None

    @property
    def needs_login(self) -> bool:
        """Whether viewers must log in."""
        return self._engine.settings.dashboard_login

    @property
    def has_password(self) -> bool:
        """Whether a password is configured; without one, no one can log in."""
        return bool(self._hash)

    def wait_for_attempt(self, client: str) -> float:
        """Count an attempt to log in, and return the seconds to wait before it; 0: none."""
        now_ms = self._engine.clock.now_ms()
        return self._client_attempts.take(client, now_ms) or self._attempts.take("", now_ms)

    async def is_password(self, password: str) -> bool:
        """Return whether this is the configured password."""
        if not self._hash:
            return False
        return await asyncio.to_thread(passwords.verify, password, self._hash)

    def begin(self, response: Response, request: Request) -> None:
        """Begin a session: put its cookie into a response."""
        now_s = int(self._engine.clock.now())
        claims = {"iss": _ISSUER, "jti": secrets.token_urlsafe(16), "exp": now_s + LIFETIME}
        response.set_cookie(
            COOKIE,
            jwt.encode(claims, self._key("session"), algorithm=_ALGORITHM),
            max_age=LIFETIME,
            path="/",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )

    async def end(self, response: Response, session: Session) -> None:
        """End a session, also for others who may have its cookie."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        if session.expires_s is not None:
            now_s = int(self._engine.clock.now())
            self._ended = await self._engine.store.write(
                lambda connection: _add_ended(connection, session, now_s)
            )

    async def session(self, request: Request) -> Session | None:
        """Return the session of a request; `None` if it has no valid one."""
        if not self.needs_login:
            return OPEN
        token = request.cookies.get(COOKIE)
        if not token or not self._hash:
            return None
        try:
            claims = jwt.decode(
                token,
                self._key("session"),
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"verify_exp": False, "require": ["jti", "exp"]},
            )
        except jwt.InvalidTokenError:
            return None
        session_id, expires = claims["jti"], claims["exp"]
        if not isinstance(expires, int) or self._engine.clock.now() >= expires:
            return None
        if self._ended is None:
            self._ended = await self._engine.store.read(_read_ended)
        return None if session_id in self._ended else Session(session_id, expires)

    def csrf_token(self, session: Session | None) -> str:
        """Return the token that forms of a session must carry; `None`: before the login."""
        name = f"csrf {session.session_id if session else ''}"
        return hmac.new(self._key(name), b"", sha256).hexdigest()

    def why_refused(self, request: Request) -> str | None:
        """Return why a request is refused, with or without a session; `None` if it is not."""
        if request.method in _SAFE:
            return None
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin")
        if site not in ("same-origin", "none"):
            return "This form was sent from another site."
        # An origin ends with its host and port, so this compares all of it.
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            return "This form was sent from another site."
        return None

    def is_csrf_token(self, given: str, session: Session | None) -> bool:
        """Return whether a form was made for this session."""
        return hmac.compare_digest(given.encode(), self.csrf_token(session).encode())

    def _key(self, use: str) -> bytes:
        text = f"dashboard {use} {self._hash}"
        return hmac.new(self._engine.store.secret, text.encode(), sha256).digest()


def _read_ended(connection: sqlite3.Connection) -> dict[str, int]:
    row = connection.execute(QUERIES["meta_value"], (_ENDED,)).fetchone()
    return msgspec.json.decode(row[0], type=dict[str, int]) if row else {}


def _add_ended(connection: sqlite3.Connection, session: Session, now_s: int) -> dict[str, int]:
    ended = _read_ended(connection)
    ended = {name: expires for name, expires in ended.items() if expires > now_s}
    ended[session.session_id] = session.expires_s or now_s
    connection.execute(QUERIES["set_meta_value"], (_ENDED, msgspec.json.encode(ended))).close()
    return ended
