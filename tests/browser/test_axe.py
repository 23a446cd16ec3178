"""No page has a serious violation of accessibility, light or dark, wide or narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Site, site

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import Page, expect

SERIOUS = ("serious", "critical")
LOOKS = [(width, theme) for width in (1440, 360) for theme in ("light", "dark")]
PAGES = {
    "home": "/",
    "runs": "/runs",
    "no runs": "/runs?q=nothing-like-it",
    "events": "/events",
    "new event": "/events/new",
    "apps": "/apps",
    "queues": "/queues",
    "a function": "/functions/{function}",
    "a function with a queue": "/functions/{queue}",
    "a function that is paused": "/functions/{paused}",
    "a run that waits for an event": "/runs/{order}",
    "a run that sleeps": "/runs/{asleep}",
    "a run that is retried": "/runs/{failing}",
    "an event": "/events/{event}",
    "no such run": "/runs/none",
}


COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that a theme can break; the others look at what both themes share."""


def violations(page: Page, axe: str, rules: list[str] | None = None) -> list[str]:
    """What axe-core finds, by all rules or by some, as text that says where."""
    # Evaluated rather than put into the page, whose policy would not let it in.
    page.evaluate(f"if (!window.axe) {{ {axe} }}")
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found: dict[str, Any] = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:4]]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]


def violations_in_each_look(page: Page, axe: str) -> dict[tuple[int, str], list[str]]:
    """What axe-core finds at each width in each theme, to which an open page turns."""
    found = {}
    for width, theme in LOOKS:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        if serious := violations(page, axe, COLOURS if theme == "dark" else None):
            found[width, theme] = serious
    return found


@pytest.fixture(scope="module")
def ids(shop: Site) -> dict[str, str]:
    """What there is to see: runs and an event, by the names that `PAGES` has for them."""
    order = shop.order("axe-1")
    shop.order("axe-2")
    asleep = shop.request("POST", "/signups", name="Ada")
    failing = shop.request("POST", "/imports", name="axe", failures=9)
    assert shop.request("GET", "/prices/sku")
    shop.pack("axe-2")
    shop.queue_up()
    paused = shop.function("shop-clean-up")
    shop.http.post(f"{shop.engine}/v1/stephttp/functions/{paused}/pause").raise_for_status()
    invoked = {"data": {"total": 12}}
    shop.http.post(f"{shop.engine}/invoke/shop-send-invoice", json=invoked).raise_for_status()
    event = shop.http.get(f"{shop.engine}/v1/events").json()["data"][0]["internal_id"]
    named = {"order": order, "asleep": asleep, "failing": failing, "event": event}
    named |= {"function": shop.function("shop-send-invoice"), "paused": paused}
    return {**named, "queue": shop.function("shop-print-label")}


def test_the_check_finds_what_is_wrong(page: Page, axe: str) -> None:
    page.set_content('<html lang="en"><title>t</title><main><img src="/x"><a href="/"></a></main>')
    assert {found.partition(":")[0] for found in violations(page, axe)} == {
        "image-alt",
        "link-name",
    }
    page.set_content('<html lang="en"><title>t</title><main style="color: #eee">pale</main>')
    (found,) = violations(page, axe, COLOURS)
    assert found.startswith("color-contrast")


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in PAGES.items()])
def test_pages(page: Page, shop: Site, ids: dict[str, str], axe: str, path: str) -> None:
    page.goto(shop.engine + path.format_map(ids))
    for summary in page.locator("main details > summary").all():
        if summary.is_visible():
            summary.click()
    assert violations_in_each_look(page, axe) == {}


def test_help(page: Page, shop: Site, axe: str) -> None:
    page.goto(shop.engine)
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    assert violations_in_each_look(page, axe) == {}


def test_pages_of_an_engine_that_has_seen_nothing(page: Page, axe: str, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    with site("--dashboard-password-file", str(password)) as fresh:
        page.goto(f"{fresh.engine}/login")
        assert violations_in_each_look(page, axe) == {}
        page.get_by_label("Password").fill("correct horse battery")
        page.get_by_role("button", name="Log in").click()
        for path in ("/", "/runs", "/events", "/apps", "/queues"):
            page.goto(f"{fresh.engine}{path}")
            assert violations_in_each_look(page, axe) == {}, path
