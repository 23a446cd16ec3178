"""Who may do what: every route with every kind of permission, in both modes.

A route that has no row in `ROWS` fails the test, and so does a row without a route.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2
import jwt
import pytest
from starlette.routing import Route, WebSocketRoute

from stephttp._wire.signatures import hash_key
from stephttp.engine import Settings, create_app
from stephttp.engine.dashboard.sessions import COOKIE, CSRF_HEADER, LIFETIME, Session
from stephttp.engine.model import tokens
from tests.engine.support import KEY, OTHER, RUN, World, sleep, world

FALLBACK, WRONG = "signkey-test-" + "cd" * 16, "signkey-test-" + "ef" * 16
EVENT_KEY, SECOND_EVENT_KEY, METRICS = "event-key-one", "event-key-two", "metrics-token-12345678"
PASSWORD = "a password for the dashboard"

# --- the kinds of access ---------------------------------------------------------------------

OPEN, KEYED, SCRAPED, SENDING = "open", "signing key", "metrics", "event key"
INVOKING = "event key as a bearer"
OUTPUT, REALTIME, PAGE, FORM, LOGIN = "run token", "realtime token", "page", "form", "login form"

ROWS: dict[str, str] = {
    "POST /v1/checkpoint": KEYED,
    "POST /v1/checkpoint/batch": KEYED,
    "POST /v1/checkpoint/{run}/steps": KEYED,
    "POST /v1/checkpoint/{run}/async": KEYED,
    "POST /v1/checkpoint/{run}/response": KEYED,
    "GET /v1/checkpoint/{run}/output": OUTPUT,
    "POST /v1/checkpoint/{run}/output": OUTPUT,
    "OPTIONS /v1/checkpoint/{run}/output": OPEN,
    "POST /v1/http/runs": KEYED,
    "POST /v1/http/runs/{run}/steps": KEYED,
    "POST /v1/http/runs/{run}/async": KEYED,
    "POST /v1/http/runs/{run}/response": KEYED,
    "GET /v1/http/runs/{run}/output": OUTPUT,
    "POST /v1/http/runs/{run}/output": OUTPUT,
    "OPTIONS /v1/http/runs/{run}/output": OPEN,
    "POST /v1/leases/renew": KEYED,
    "GET /v1/runs/{run}/outcome": KEYED,
    "GET /v0/runs/{run}/actions": KEYED,
    "GET /v0/runs/{run}/batch": KEYED,
    "DELETE /v0/runs/{run}": KEYED,
    "GET /v1/runs": KEYED,
    "GET /v1/runs/{run}": KEYED,
    "DELETE /v1/runs/{run}": KEYED,
    "GET /v1/runs/{run}/jobs": KEYED,
    "GET /v1/runs/{run}/steps": KEYED,
    "GET /v1/runs/{run}/spans": KEYED,
    "POST /v1/runs/{run}/metadata": KEYED,
    "POST /v1/traces/userland": KEYED,
    "GET /v1/realtime/sse": REALTIME,
    "POST /v1/realtime/token": KEYED,
    "POST /v1/realtime/publish": KEYED,
    "POST /v1/realtime/publish/tee": KEYED,
    "WEBSOCKET /v1/realtime/connect": REALTIME,
    "GET /e/": OPEN,
    "POST /e/": OPEN,
    "POST /e/{key}": SENDING,
    "GET /v1/events": KEYED,
    "GET /v1/events/{event}": KEYED,
    "GET /v1/events/{event}/runs": KEYED,
    "POST /v1/signals": KEYED,
    "POST /v1/cancellations": KEYED,
    "GET /v1/cancellations": KEYED,
    "DELETE /v1/cancellations/{id}": KEYED,
    "GET /dev": KEYED,
    "POST /fn/register": KEYED,
    "DELETE /fn/remove": KEYED,
    "GET /v1/apps/{name}/functions": KEYED,
    "POST /invoke/{slug}": INVOKING,
    "POST /v0/gql": KEYED,
    "GET /v2/runs/{run}": KEYED,
    "GET /v2/runs/{run}/trace": KEYED,
    "POST /v2/runs/{run}/cancel": KEYED,
    "POST /v2/runs/{run}/rerun": KEYED,
    "GET /v2/events/{event}/runs": KEYED,
    "GET /api/v2/runs/{run}": KEYED,
    "GET /api/v2/runs/{run}/trace": KEYED,
    "POST /api/v2/runs/{run}/cancel": KEYED,
    "POST /api/v2/runs/{run}/rerun": KEYED,
    "GET /api/v2/events/{event}/runs": KEYED,
    "GET /health": OPEN,
    "GET /v1/stephttp/runs/{run}": KEYED,
    "POST /v1/stephttp/runs/{run}/rerun": KEYED,
    "POST /v1/stephttp/runs/{run}/resume": KEYED,
    "POST /v1/stephttp/runs/cancel": KEYED,
    "POST /v1/stephttp/runs/rerun": KEYED,
    "GET /v1/stephttp/overview": KEYED,
    "GET /v1/stephttp/endpoints": KEYED,
    "GET /v1/stephttp/functions": KEYED,
    "GET /v1/stephttp/queues": KEYED,
    "POST /v1/stephttp/functions/{function}/pause": KEYED,
    "POST /v1/stephttp/functions/{function}/resume": KEYED,
    "POST /v1/stephttp/functions/{function}/invoke": KEYED,
    "GET /v1/stephttp/changes": KEYED,
    "POST /v1/stephttp/probe": KEYED,
    "GET /v1/stephttp/events": KEYED,
    "GET /v1/stephttp/events/{event}": KEYED,
    "POST /v1/stephttp/events": KEYED,
    "GET /metrics": SCRAPED,
    "GET /openapi.json": KEYED,
    "GET /": PAGE,
    "GET /runs": PAGE,
    "POST /runs/bulk": FORM,
    "GET /runs/{run}": PAGE,
    "GET /runs/{run}/raw/{part}": PAGE,
    "POST /runs/{run}/cancel": FORM,
    "POST /runs/{run}/rerun": FORM,
    "POST /runs/{run}/rerun-from": FORM,
    "POST /runs/{run}/resume": FORM,
    "POST /runs/{run}/send": FORM,
    "GET /events": PAGE,
    "GET /events/new": PAGE,
    "POST /events/new": FORM,
    "GET /events/{event}": PAGE,
    "GET /apps": PAGE,
    "GET /functions/{function}": PAGE,
    "POST /functions/{function}": FORM,
    "POST /functions/{function}/pause": FORM,
    "POST /functions/{function}/resume": FORM,
    "GET /queues": PAGE,
    "GET /live": PAGE,
    "GET /login": OPEN,
    "POST /login": LOGIN,
    "POST /logout": FORM,
    "GET /static/{name:path}": OPEN,
}


@dataclass(frozen=True)
class Permission:
    """What a client shows: a header, a token in the query, a key in the path, a cookie."""

    name: str
    authorization: str = ""
    token: str = ""
    event_key: str = "no-such-key"
    cookie: str = ""
    csrf: str = ""
    form: str = ""
    opens: frozenset[str] = field(default_factory=frozenset)
    """Kinds of access for which it suffices."""
    mode: str = ""
    """The only mode in which it opens anything."""


def shown(w: World) -> list[Permission]:
    """Every permission there is, and what looks like one."""
    secret, now = w.engine.store.secret, int(w.clock.now())
    dashboard: Any = w.app.state.dashboard
    sessions = dashboard.sessions
    key = sessions._key("session")

    def bearer(name: str, text: str, *opens: str) -> Permission:
        return Permission(name, f"Bearer {text}", text, opens=frozenset(opens))

    def run_token(run_id: str = RUN, age: int = 0, by: bytes = secret) -> str:
        return tokens.run_token(run_id, by, now - age)

    def topics(age: int = 0, by: bytes = secret) -> str:
        return tokens.realtime_token([(RUN, "$stream")], by, now - age, 960, RUN)

    def cookie(expires: int = now + LIFETIME, by: bytes = key, name: str = "s", **more: Any) -> str:
        claims = {"iss": "stephttp-dashboard", "jti": name, "exp": expires, **more}
        return jwt.encode(claims, by, algorithm="HS256")

    def csrf(name: str = "s") -> str:
        return str(sessions.csrf_token(Session(name, now)))

    def unsigned(token: str) -> str:
        claims = jwt.decode(token, options={"verify_signature": False})
        return jwt.encode(claims, "", algorithm="none")

    def tampered(token: str) -> str:
        head, _, signature = token.split(".")
        told = jwt.decode(token, options={"verify_signature": False})
        claims = {**told, "iat": now, "exp": now + 10**6}
        body = jwt.encode(claims, "x" * 32, algorithm="HS256").split(".")[1]
        return f"{head}.{body}.{signature}"

    def cut(token: str) -> str:
        return token[:-1] + ("A" if token[-1] != "A" else "B")

    keyed = frozenset({KEYED, SCRAPED})
    return [
        Permission("nothing"),
        Permission("an empty key", "Bearer "),
        Permission("another scheme", f"Basic {KEY}"),
        Permission("no scheme", KEY),
        Permission("a wrong key", f"Bearer {WRONG}"),
        Permission("the hash of a wrong key", f"Bearer {hash_key(WRONG)}"),
        Permission("the hash of a hash", f"Bearer {hash_key(hash_key(KEY))}"),
        Permission("a part of the key", f"Bearer {KEY[:-2]}"),
        Permission("characters that are not ASCII", "Bearer \xff\xfe"),
        Permission("the key", f"Bearer {KEY}", opens=keyed),
        Permission("its hash", f"bearer {hash_key(KEY)}", opens=keyed),
        Permission("the fallback", f"Bearer {FALLBACK}", opens=keyed),
        Permission("the key in the query", token=KEY),
        Permission("the metrics token", f"Bearer {METRICS}", opens=frozenset({SCRAPED})),
        Permission("an event key", event_key=EVENT_KEY, opens=frozenset({SENDING})),
        Permission("another event key", event_key=SECOND_EVENT_KEY, opens=frozenset({SENDING})),
        Permission("an event key as a bearer", f"Bearer {EVENT_KEY}", opens=frozenset({INVOKING})),
        Permission("the signing key as an event key", event_key=KEY),
        Permission("an event key with a slash", event_key=EVENT_KEY + "%2F"),
        bearer("the run's token", run_token(), OUTPUT),
        bearer("an expired token", run_token(age=3600)),
        bearer("the token of another run", run_token(OTHER)),
        bearer("a token of another database", run_token(by=b"x" * 32)),
        bearer("a token signed with the key", run_token(by=KEY.encode())),
        bearer("a token signed with nothing", run_token(by=b"")),
        bearer("an unsigned token", unsigned(run_token())),
        bearer("a tampered token", tampered(run_token(age=3600))),
        bearer("a token with another signature", cut(run_token())),
        bearer("a token of topics", topics(), REALTIME),
        bearer("an expired token of topics", topics(age=960)),
        bearer("a token of topics of another database", topics(by=b"x" * 32)),
        bearer("an unsigned token of topics", unsigned(topics())),
        bearer("a tampered token of topics", tampered(topics(age=960))),
        bearer("a token that is none", "a.b.c"),
        Permission("a session", cookie=cookie(), opens=frozenset({PAGE})),
        Permission(
            "a session and its form", cookie=cookie(name="u"), csrf=csrf("u"),
            opens=frozenset({PAGE, FORM}), mode="start",
        ),
        Permission(
            "a session and the form of another", cookie=cookie(), csrf=csrf("t"),
            opens=frozenset({PAGE}),
        ),
        Permission("an expired session", cookie=cookie(now), csrf=csrf()),
        Permission("a session of another database", cookie=cookie(by=b"x" * 32), csrf=csrf()),
        Permission("an unsigned session", cookie=unsigned(cookie()), csrf=csrf()),
        Permission("a tampered session", cookie=tampered(cookie(now)), csrf=csrf()),
        Permission("a session of another issuer", cookie=cookie(iss="x"), csrf=csrf()),
        Permission("a run's token as a session", cookie=run_token(), csrf=csrf()),
        Permission(
            "the form of a page that needs no session", csrf=csrf("open"), opens=frozenset({FORM}),
            mode="dev",
        ),
        Permission("the form of the login", csrf=sessions.csrf_token(None)),
        Permission("the password without its form", form=f"password={quote(PASSWORD)}"),
        Permission(
            "a wrong password", csrf=sessions.csrf_token(None), form="password=a+password",
        ),
        Permission(
            "the password", csrf=sessions.csrf_token(None), form=f"password={quote(PASSWORD)}",
            opens=frozenset({LOGIN}), mode="start",
        ),
    ]  # fmt: skip


ANYWAY = {"dev": frozenset({KEYED, SCRAPED, SENDING, INVOKING, PAGE}), "start": frozenset[str]()}
"""What everyone may do in each mode. Tokens and the origin of forms count in both."""


def rows_of(app: Any) -> set[str]:
    found: set[str] = set()
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            found.add(f"WEBSOCKET {route.path}")
        else:
            assert isinstance(route, Route), "a kind of route that this test does not know"
            found |= {f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"}}
    return found


def test_every_route_has_a_row() -> None:
    assert rows_of(create_app(Settings(db_path=":memory:"))) == set(ROWS)


@asynccontextmanager
async def engine(mode: str) -> AsyncGenerator[World]:
    keys: dict[str, Any] = {}
    if mode == "start":
        keys = {
            "signing_keys": (KEY, FALLBACK),
            "event_keys": (EVENT_KEY, SECOND_EVENT_KEY),
            "metrics_token": METRICS,
            "dashboard_password": PASSWORD,
        }
    async with world(**keys, link_lifetime=3600) as w:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        await w.post(sleep(text="1h"))
        await w.post(sleep(text="1h"), run_id=OTHER)
        yield w


_VALUES = {"run": RUN, "event": RUN, "id": RUN, "part": "body", "name:path": "app.css"}
_VALUES |= {"name": "shop", "slug": "shop-pack", "function": "shop-pack"}


def scope_of(row: str, permission: Permission) -> dict[str, Any]:
    method, path = row.split(" ")
    values = _VALUES | {"key": permission.event_key}
    path = re.sub(r"\{([^}]+)\}", lambda match: values[match[1]], path)
    headers = {
        "host": "127.0.0.1",
        "content-type": permission.form and "application/x-www-form-urlencoded",
        "authorization": permission.authorization,
        "cookie": permission.cookie and f"{COOKIE}={permission.cookie}",
        CSRF_HEADER: permission.csrf,
    }
    query = f"channel={RUN}&topic=a&token={quote(permission.token)}"
    return {
        "type": "websocket" if method == "WEBSOCKET" else "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": (query if permission.token else f"channel={RUN}&topic=a").encode(),
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items() if v],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8288),
        "scheme": "http",
        "http_version": "1.1",
        "subprotocols": [],
    }


async def status_of(
    app: Any, scope: dict[str, Any], body: bytes
) -> tuple[int, Mapping[bytes, bytes]]:
    """The status and headers with which an answer begins; streams are then left."""
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    websocket = scope["type"] == "websocket"
    request: dict[str, Any] = {"type": "http.request", "body": body, "more_body": False}
    to_come = [{"type": "websocket.connect"} if websocket else request]

    async def receive() -> Any:
        if to_come:
            return to_come.pop()
        await asyncio.sleep(0)
        return {"type": "websocket.disconnect" if websocket else "http.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        if not first.done():
            first.set_result(message)

    task = asyncio.ensure_future(app(scope, receive, send))
    await asyncio.wait({task, first}, return_when=asyncio.FIRST_COMPLETED)
    message = await first
    task.cancel()
    await asyncio.wait({task})
    if websocket:
        return (200 if message["type"] == "websocket.accept" else 403), {}
    return message["status"], dict(message["headers"])


def is_refused(status: int, headers: Mapping[bytes, bytes]) -> bool:
    to_login = status == 303 and headers.get(b"location", b"").startswith(b"/login")
    left = b"set-cookie" in headers  # by a logout, which leads there as well
    expired = headers.get(b"x-stephttp-result") == b"gone"
    return status in (401, 403) or expired or (to_login and not left)


@pytest.mark.parametrize("mode", ["dev", "start"])
async def test_each_permission_opens_what_it_is_for_and_nothing_else(mode: str) -> None:
    async with engine(mode) as w:
        permissions = shown(w)

        def opens(permission: Permission, access: str) -> bool | None:
            """Whether a permission opens something. `None`: what is open to all is not tried with
            each; pages take their time."""
            if access in ANYWAY[mode] or access == OPEN:
                return True if permission.name in ("nothing", "a wrong key") else None
            return permission.mode in ("", mode) and access in permission.opens

        async def changes() -> int:
            counted: int = await w.engine.store.write(lambda connection: connection.total_changes)
            return counted

        async def wrong(expected: bool) -> list[str]:
            """What is not as expected, among all that is to be refused, or not to be."""
            found = []
            for permission in permissions:
                for row, access in ROWS.items():
                    if opens(permission, access) is expected:
                        body = permission.form.encode() or b"{}"
                        status, headers = await status_of(w.app, scope_of(row, permission), body)
                        if is_refused(status, headers) is expected:
                            found.append(f"{row} with {permission.name}: {status}")
            return found

        before = await changes()
        assert await wrong(expected=False) == []
        assert (await changes(), w.calls) == (before, []), "what is refused does nothing"
        w.script = [httpx2.Response(404)] * 10_000
        assert await wrong(expected=True) == []
