"""No page has a serious violation of accessibility, light or dark, wide or narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Site, site

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import Page, expect

SERIOUS = ("serious", "critical")
THEMES = ("light", "dark")


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds, as text that says where."""
    # Evaluated rather than put into the page, whose policy would not let it in.
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:4]]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]


@pytest.fixture(scope="module")
def paths(shop: Site) -> list[str]:
    """A page of every kind, with something on it."""
    order = shop.order("axe-1")
    shop.order("axe-2")
    asleep = shop.request("POST", "/signups", name="Ada")
    failing = shop.request("POST", "/imports", name="axe", failures=9)
    done = shop.request("GET", "/prices/sku")
    shop.pack("axe-2")
    event = shop.http.get(f"{shop.engine}/v1/events").json()["data"][0]["internal_id"]
    runs = [f"/runs/{one}" for one in (order, asleep, failing)]
    lists = ["/", "/runs", "/runs?q=nothing-like-it", "/events", "/events/new", "/apps"]
    assert done
    return [*lists, *runs, f"/events/{event}", "/runs/none"]


def test_the_check_finds_what_is_wrong(page: Page, axe: str) -> None:
    page.set_content('<html lang="en"><title>t</title><main><img src="/x"><a href="/"></a></main>')
    assert {found.partition(":")[0] for found in violations(page, axe)} == {
        "image-alt",
        "link-name",
    }


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [1440, 360])
def test_pages(page: Page, shop: Site, paths: list[str], axe: str, theme: Any, width: int) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    found = {}
    for path in paths:
        page.goto(f"{shop.engine}{path}")
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        for summary in page.locator("main details > summary").all():
            if summary.is_visible():
                summary.click()
        if serious := violations(page, axe):
            found[path] = serious
    page.goto(shop.engine)
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    if serious := violations(page, axe):
        found["help"] = serious
    assert found == {}


@pytest.mark.parametrize("theme", THEMES)
def test_pages_of_an_engine_that_has_seen_nothing(
    page: Page, axe: str, theme: Any, tmp_path: Path
) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    with site("--dashboard-password-file", str(password)) as fresh:
        page.goto(f"{fresh.engine}/login")
        assert violations(page, axe) == []
        page.get_by_label("Password").fill("correct horse battery")
        page.get_by_role("button", name="Log in").click()
        for path in ("/", "/runs", "/events", "/apps"):
            page.goto(f"{fresh.engine}{path}")
            assert violations(page, axe) == [], path
