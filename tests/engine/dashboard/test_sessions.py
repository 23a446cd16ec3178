"""Who may see the dashboard, and what protects its forms."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp.engine import Settings, VirtualClock, create_app
from stephttp.engine.dashboard import passwords
from stephttp.errors import ConfigurationError
from tests.engine.support import KEY, RUN, World, step, world

PASSWORD = "correct horse battery"
HASH = passwords.hash_password(PASSWORD, b"0" * 16)
PAGES = ["/", "/runs", f"/runs/{RUN}", "/events", "/events/new", "/apps", "/live"]
FORMS = [
    "/runs/bulk", "/events/new", "/logout",
    *(f"/runs/{RUN}/{what}" for what in ("cancel", "rerun", "rerun-from", "resume", "send")),
]  # fmt: skip


async def token(w: World, path: str) -> str:
    """The token of a page's first form."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', (await w.http.get(path)).text)
    assert found
    return found.group(1)


async def log_in(w: World, password: str = PASSWORD, **fields: str) -> httpx2.Response:
    data = {"csrf": await token(w, "/login"), "password": password, **fields}
    return await w.http.post("/login", data=data)


@pytest.fixture
async def closed() -> AsyncGenerator[World]:
    async with world(dashboard_password=HASH) as w:
        yield w


@pytest.mark.parametrize("path", PAGES)
async def test_without_a_session_every_page_leads_to_the_login(closed: World, path: str) -> None:
    response = await closed.http.get(f"{path}?a=1")
    assert response.status_code == 303
    assert response.headers["location"] == f"/login?next={path}%3Fa%3D1"
    parts = await closed.http.get(path, headers={"hx-request": "true"})
    assert (parts.status_code, parts.headers["hx-redirect"][:7]) == (401, "/login?")


@pytest.mark.parametrize("path", FORMS)
async def test_without_a_session_nothing_can_be_done(closed: World, path: str) -> None:
    data = {"csrf": await token(closed, "/login")}
    response = await closed.http.post(path, data=data)
    assert (response.status_code, response.headers["location"]) == (303, "/login")


async def test_login_and_logout(closed: World) -> None:
    response = await log_in(closed, next="/events?q=1")
    assert (response.status_code, response.headers["location"]) == (303, "/events?q=1")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie, "over plain HTTP browsers would not send it back"
    assert (await closed.http.get("/runs")).status_code == 200
    kept = dict(closed.http.cookies)
    gone = await closed.http.post("/logout", data={"csrf": await token(closed, "/events/new")})
    assert gone.headers["location"] == "/login"
    assert (await closed.http.get("/runs")).status_code == 303
    closed.http.cookies.update(kept)
    assert (await closed.http.get("/runs")).status_code == 303, "whoever kept the cookie is out"


async def test_the_cookie_is_secure_where_the_browser_used_https() -> None:
    async with world(dashboard_password=HASH) as w:
        w.http.base_url = httpx2.URL("https://engine.test")
        assert "Secure" in (await log_in(w)).headers["set-cookie"]


async def test_a_session_ends(closed: World) -> None:
    await log_in(closed)
    closed.clock.advance(12 * 3600 - 1)
    assert (await closed.http.get("/runs")).status_code == 200
    closed.clock.advance(1)
    assert (await closed.http.get("/runs")).status_code == 303


async def test_sessions_outlive_a_restart_but_not_their_logout_or_a_new_password(
    tmp_path: Path,
) -> None:
    path, clock = tmp_path / "runs.sqlite3", VirtualClock()
    async with world(clock, path, dashboard_password=HASH) as w:
        await log_in(w)
        first = dict(w.http.cookies)
        w.http.cookies.clear()
        await log_in(w)
        await w.http.post("/logout", data={"csrf": await token(w, "/events/new")})
        second = {"stephttp_session": first["stephttp_session"]}
    async with world(clock, path, dashboard_password=HASH) as w:
        w.http.cookies.update(second)
        assert (await w.http.get("/runs")).status_code == 200
        await w.http.post("/logout", data={"csrf": await token(w, "/events/new")})
    async with world(clock, path, dashboard_password=HASH) as w:
        w.http.cookies.update(second)
        assert (await w.http.get("/runs")).status_code == 303
        w.http.cookies.clear()
        await log_in(w)
        third = dict(w.http.cookies)
    other = passwords.hash_password(PASSWORD, b"1" * 16)
    async with world(clock, path, dashboard_password=other) as w:
        w.http.cookies.update(third)
        assert (await w.http.get("/runs")).status_code == 303


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
async def test_cookies_that_are_none(closed: World, cookie: str) -> None:
    closed.http.cookies.set("stephttp_session", cookie)
    assert (await closed.http.get("/runs")).status_code == 303


async def test_a_token_of_the_engine_is_no_session(closed: World) -> None:
    output = (await closed.post(step()))["token"]
    closed.http.cookies.set("stephttp_session", output)
    assert (await closed.http.get("/runs")).status_code == 303


async def test_attempts_are_limited(closed: World) -> None:
    csrf = await token(closed, "/login")
    data = {"csrf": csrf, "password": "wrong"}
    tries = [await closed.http.post("/login", data=data) for _ in range(6)]
    assert [one.status_code for one in tries] == [401] * 5 + [429]
    assert "That is not the password." in tries[0].text
    assert "set-cookie" not in tries[0].headers
    right = {"csrf": csrf, "password": PASSWORD}
    assert (await closed.http.post("/login", data=right)).status_code == 429, "even the right one"
    assert tries[-1].headers["retry-after"] == "10"
    closed.clock.advance(10)
    assert (await closed.http.post("/login", data=right)).status_code == 303


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "", "/\nx"]
)
async def test_the_login_leads_only_to_pages_of_ours(closed: World, target: str) -> None:
    response = await log_in(closed, next=target)
    assert response.headers["location"] == "/"


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "engine.example.com"}, True),
        ({"signing_keys": (KEY,)}, True),
        ({"dashboard_password": HASH}, True),
    ],
)
def test_where_a_login_is_needed(settings: dict[str, Any], needed: bool) -> None:
    assert Settings(**settings).dashboard_login is needed


async def test_without_a_password_nobody_can_log_in() -> None:
    async with world(signing_keys=(KEY,)) as w:
        page = await w.http.get("/login")
        assert "STEPHTTP_DASHBOARD_PASSWORD" in page.text
        csrf = {"csrf": w.app.state.dashboard.sessions.csrf_token(None)}
        for password in ("", "x"):
            assert (await w.http.post("/login", data={**csrf, "password": password})).is_error


@pytest.mark.parametrize("path", FORMS)
async def test_forms_of_other_pages_are_refused(path: str) -> None:
    async with world() as w:
        await w.post(step())
        csrf = await token(w, "/events/new")
        for headers, given in (
            ({}, None),
            ({}, "0" * 64),
            ({}, w.app.state.dashboard.sessions.csrf_token(None)),
            ({"origin": "https://evil.example"}, csrf),
            ({"origin": "null"}, csrf),
            ({"origin": "http://[::1"}, csrf),
            ({"origin": "http://localhost:3000"}, csrf),
            ({"sec-fetch-site": "cross-site"}, csrf),
            ({"sec-fetch-site": "same-site"}, csrf),
        ):
            data = {} if given is None else {"csrf": given}
            response = await w.http.post(path, data=data, headers=headers)
            assert response.status_code == 403, (headers, given)
        run = await w.run()
        assert run["status"] == "Running"
        assert (await w.http.get("/v1/runs")).json()["data"][0]["run_id"] == RUN


async def test_our_own_pages_may_send_forms_whatever_the_engine_is_called() -> None:
    async with world(host="0.0.0.0", dashboard_password=HASH) as w:
        w.http.base_url = httpx2.URL("http://192.0.2.7:8288")
        w.http.headers["origin"] = "http://192.0.2.7:8288"
        assert (await log_in(w)).status_code == 303
        csrf = await token(w, "/events/new")
        sent = await w.http.post("/events/new", data={"csrf": csrf, "name": "a", "data": "{}"})
        assert sent.headers["location"].startswith("/events/0")


@pytest.mark.parametrize("keys", [(), (KEY,)])
async def test_pages_lead_only_to_what_a_browser_may_see(keys: tuple[str, ...]) -> None:
    async with world(dashboard_password=HASH, signing_keys=keys) as w:
        await log_in(w)
        for link in set(re.findall(r'<a [^>]*href="(/[^"]*)"', (await w.http.get("/runs")).text)):
            assert (await w.http.get(link)).status_code == 200, link


async def test_the_api_does_not_take_a_session_for_a_key() -> None:
    async with world(signing_keys=(KEY,), dashboard_password=HASH) as w:
        await log_in(w)
        assert (await w.http.get("/runs")).status_code == 200
        assert (await w.http.get("/v1/runs")).status_code == 401


def test_passwords() -> None:
    assert passwords.verify(PASSWORD, HASH)
    assert not passwords.verify("correct horse batterie", HASH)
    assert passwords.as_hash(HASH) == HASH
    assert passwords.verify(PASSWORD, passwords.as_hash(PASSWORD))
    for wrong in ("short", "scrypt$1", "scrypt$16384$8$1$!$!", "scrypt$x$8$1$AA==$AA=="):
        with pytest.raises(ConfigurationError, match="dashboard's password"):
            create_app(Settings(dashboard_password=wrong))
