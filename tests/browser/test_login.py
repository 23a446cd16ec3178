"""The login, in a browser, before `stephttp start`."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest

from stephttp._wire.signatures import hash_key
from tests.acceptance.processes import STEPHTTP, Process

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import Page, expect

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """An engine for production; the hash of its password comes from the command."""
    made = Path(tmp_path_factory.mktemp("login"))
    (made / "typed").write_text(f"{PASSWORD}\n")
    with (made / "typed").open() as typed:
        import subprocess

        hashed = subprocess.run(
            [*STEPHTTP, "dashboard-password"], stdin=typed, capture_output=True, check=True
        ).stdout
    (made / "password").write_bytes(b"# of the dashboard\n" + hashed)
    keys = {"INNGEST_SIGNING_KEY": "ab" * 32, "INNGEST_EVENT_KEY": "event-key"}
    options = ["--port", "0", "--db", str(made / "runs.sqlite3"), "--log-format", "json"]
    command = [*STEPHTTP, "start", *options, "--dashboard-password-file", str(made / "password")]
    with Process(command, env=keys) as process:
        yield process.wait_for(r'"url":\s*"(http://[^"]+)"').group(1)


def test_login_and_logout(page: Page, engine: str) -> None:
    page.goto(f"{engine}/events")
    expect(page).to_have_url(re.compile(r"/login\?next="))
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{engine}/events")
    expect(page.locator("[data-live-state]")).to_have_attribute("data-live-state", "on")
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(f"{engine}/runs")
    expect(page.get_by_label("Password")).to_be_visible()
    # Whoever has kept the cookie is out, too.
    kept = {"stephttp_session": str(cookie["value"])}
    assert httpx2.get(f"{engine}/runs", cookies=kept).status_code == 303


def test_what_a_handler_answers_cannot_use_the_dashboard(page: Page, engine: str) -> None:
    page.goto(f"{engine}/login")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    # Of no origin, it gets no answers from ours, and its requests no cookie.
    script = "document.title = `origin ${window.origin}`"
    html = {"content-type": "text/html"}
    done = {"status": 200, "headers": html, "body": f"<p>Yours</p><script>{script}</script>"}
    run_id = "01M81KWY2JTNRXZTV817ZB746V"
    app = {"domain": "https://app.example.com", "method": "GET", "path": "/"}
    stored = httpx2.post(
        f"{engine}/v1/checkpoint",
        headers={"authorization": f"Bearer {hash_key('ab' * 32)}"},
        json={
            "run_id": run_id,
            "event": {"name": "inngest/http.request", "data": app},
            "steps": [{"op": "RunComplete", "id": "c", "data": done}],
        },
    )
    token = stored.json()["data"]["token"]
    page.goto(f"{engine}/v1/http/runs/{run_id}/output?token={token}")
    expect(page.get_by_text("Yours")).to_be_visible()
    expect(page).to_have_title("origin null")


def test_a_form_of_another_site_is_refused(page: Page, engine: str) -> None:
    page.goto(f"{engine}/login")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    cookies = {"stephttp_session": str(page.context.cookies()[0]["value"])}
    page.goto(f"{engine}/events/new")
    token = page.locator("form.stack [name=csrf]").get_attribute("value") or ""
    event = {"name": "a/b", "data": "{}"}

    def post(origin: str | None, csrf: str) -> int:
        headers = {} if origin is None else {"origin": origin}
        data = {**event, "csrf": csrf}
        url = f"{engine}/events/new"
        return httpx2.post(url, data=data, headers=headers, cookies=cookies).status_code

    assert post("https://evil.example", token) == 403
    assert post(engine, "") == 403
    assert post(engine, "0" * 64) == 403
    assert post(engine, token) == 303

    # The same from a real page elsewhere: the browser says where it comes from.
    page.route("https://evil.example/", lambda route: route.fulfill(
        content_type="text/html",
        body=f'<form method="post" action="{engine}/events/new"><input name="name" value="stolen">'
        f'<input name="csrf" value="{token}"><button>Win</button></form>',
    ))  # fmt: skip
    page.goto("https://evil.example/")
    page.get_by_role("button", name="Win").click()
    page.wait_for_url(f"{engine}/**")
    page.goto(f"{engine}/events")
    if page.get_by_label("Password").count():
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
    expect(page.locator("main")).to_contain_text("a/b")
    assert page.get_by_text("stolen").count() == 0
