"""What people see and do: lists and waterfalls that live, and buttons that do what they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.browser.conftest import Site, site

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import Page, expect

EVIL = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _patience() -> None:
    expect.set_options(timeout=20_000)


@pytest.fixture
def never_reloaded(page: Page) -> Callable[[], None]:
    """Mark the page that is open; the mark is gone if the page is loaded again."""
    return lambda: page.evaluate("window.mark = 'mine'")


def is_marked(page: Page) -> bool:
    return bool(page.evaluate("window.mark === 'mine'"))


def is_live(page: Page) -> None:
    expect(page.locator("[data-live-state]")).to_have_attribute("data-live-state", "on")


def state(page: Page) -> Any:
    return page.locator(".run-head .state")


def test_the_first_run_takes_the_place_of_the_hints(page: Page) -> None:
    with site() as fresh:
        page.goto(f"{fresh.engine}/runs")
        expect(page.get_by_role("heading", name="Waiting for the first request")).to_be_visible()
        expect(page.get_by_text(f"INNGEST_DEV={fresh.engine} uvicorn shop:app")).to_be_visible()
        is_live(page)
        page.evaluate("window.mark = 'mine'")
        run_id = fresh.request("GET", "/prices/sku-1")
        expect(page.locator(f"#run-{run_id}")).to_be_visible()
        assert is_marked(page)


def test_a_run_appears_in_the_open_list(
    page: Page, shop: Site, never_reloaded: Callable[[], None]
) -> None:
    shop.request("GET", "/prices/sku-1")
    page.goto(f"{shop.engine}/runs")
    is_live(page)
    never_reloaded()
    page.locator("tbody input[name=run]").first.check()
    chosen = page.locator("tbody input[name=run]").first.get_attribute("value")
    run_id = shop.order("appears")
    row = page.locator(f"#run-{run_id}")
    expect(row).to_contain_text("place-order")
    expect(row).to_contain_text("Waiting")
    shop.pack("appears")
    expect(row).to_contain_text("Completed")
    assert is_marked(page)
    expect(page.locator(f"input[value='{chosen}']")).to_be_checked()
    expect(page.locator("[data-chosen]")).to_have_text("1 chosen")


def test_the_waterfall_grows(page: Page, shop: Site, never_reloaded: Callable[[], None]) -> None:
    run_id = shop.order("grows")
    page.goto(f"{shop.engine}/runs/{run_id}")
    is_live(page)
    never_reloaded()
    rows = page.locator("#waterfall details.entry")
    expect(rows).to_have_count(5)
    charge = page.locator(".entry", has_text="charge-card")
    charge.locator("summary").first.click()
    expect(charge.get_by_text('"ch_grows"')).to_be_visible()
    shop.pack("grows")
    expect(state(page)).to_have_text("Completed")
    expect(rows).to_have_count(7)
    expect(page.locator(".entry .name", has_text="Re-entries")).to_be_visible()
    expect(charge.get_by_text('"ch_grows"')).to_be_visible()
    assert is_marked(page)


def test_what_the_run_waits_for_can_be_sent(page: Page, shop: Site) -> None:
    run_id = shop.order("to-be-sent")
    page.goto(f"{shop.engine}/runs/{run_id}")
    box = page.locator(".waitbox")
    expect(box).to_contain_text("order/packed")
    expect(box.locator("textarea")).to_have_value(re.compile('"order": "to-be-sent"'))
    box.get_by_role("button", name="Send the event").click()
    expect(page.get_by_role("status").filter(has_text="The event was sent.")).to_be_visible()
    expect(state(page)).to_have_text("Completed")
    assert shop.run(run_id)["status"] == "Completed"
    page.locator(".lines a", has_text="order/packed").click()
    waited = page.get_by_role("link", name=re.compile("waited for it in parcel-packed"))
    expect(waited).to_be_visible()


def test_cancel_asks_first(page: Page, shop: Site) -> None:
    run_id = shop.order("to-be-cancelled")
    page.goto(f"{shop.engine}/runs/{run_id}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Back").click()
    expect(state(page)).to_have_text("Waiting")
    page.get_by_role("button", name="Cancel").click()
    page.locator("dialog[open] [data-confirm-yes]").click()
    expect(state(page)).to_have_text("Cancelled")
    expect(page.get_by_text("The run was cancelled.")).to_be_visible()
    assert shop.run(run_id)["status"] == "Cancelled"


def test_resume_now(page: Page, shop: Site) -> None:
    run_id = shop.request("POST", "/signups", name="Ada", wait=3600)
    page.goto(f"{shop.engine}/runs/{run_id}")
    expect(page.locator(".waitbox")).to_contain_text("cool-off")
    page.get_by_role("button", name="Resume now").click()
    expect(state(page)).to_have_text("Completed")
    assert shop.run(run_id)["status"] == "Completed"


def test_rerun(page: Page, shop: Site) -> None:
    run_id = shop.request("GET", "/prices/sku-7")
    expect_stored(page, shop, run_id)
    page.get_by_role("button", name="Rerun", exact=True).first.click()
    expect(page.get_by_text("This is a new run of the same request.")).to_be_visible()
    expect(state(page)).to_have_text("Completed")
    new = page.url.split("/runs/")[1][:26]
    assert new != run_id
    expect(page.get_by_role("link", name=run_id)).to_be_visible()
    expect(page.locator("body")).to_contain_text('"sku-7"')


@pytest.mark.parametrize(
    ("choice", "value", "shown"),
    [
        ("Run it with this input", '"missing-article"', "no such article"),
        ("Skip it, with this output", "4711", "4711"),
        (None, None, "1999"),
    ],
)
def test_rerun_from_a_step(
    page: Page, shop: Site, choice: str | None, value: str | None, shown: str
) -> None:
    run_id = shop.request("GET", "/prices/sku-8")
    expect_stored(page, shop, run_id)
    entry = page.locator(".entry", has_text="look-up")
    entry.locator("summary").first.click()
    entry.get_by_text("Rerun from here").first.click()
    if choice is not None and value is not None:
        entry.get_by_label(choice).check()
        entry.locator("textarea").fill(value)
    entry.get_by_role("button", name="Rerun from here").click()
    expect(page.get_by_text("it took over the steps before the one you chose")).to_be_visible()
    assert run_id not in page.url
    expect(page.locator("section", has=page.locator("#response-title"))).to_contain_text(shown)


def test_many_runs_at_once(page: Page, shop: Site) -> None:
    runs = [shop.order(f"bulk-{number}") for number in range(3)]
    page.goto(f"{shop.engine}/runs?q=bulk-")
    for run_id in runs[:2]:
        page.get_by_label(f"Choose run {run_id}").check()
    expect(page.locator("[data-chosen]")).to_have_text("2 chosen")
    page.locator(".bulk").get_by_role("button", name="Cancel").click()
    page.locator("dialog[open] [data-confirm-yes]").click()
    expect(page.get_by_text("Cancelled: 2.")).to_be_visible()
    assert [shop.run(one)["status"] for one in runs] == ["Cancelled", "Cancelled", "Running"]
    page.get_by_label("All that the filter finds").check()
    page.locator(".bulk").get_by_role("button", name="Cancel").click()
    page.locator("dialog[open] [data-confirm-yes]").click()
    expect(page.get_by_text("Cancelled: 1.")).to_be_visible()
    page.get_by_label("All shown").check()
    page.locator(".bulk").get_by_role("button", name="Rerun").click()
    page.locator("dialog[open] [data-confirm-yes]").click()
    expect(page.get_by_text("Run again: 3.")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(6)


def test_filters_work_as_they_are_typed(page: Page, shop: Site) -> None:
    order, price = shop.order("needle-1"), shop.request("GET", "/prices/hay")
    page.goto(f"{shop.engine}/runs")
    expect(page.locator(f"#run-{price}")).to_be_visible()
    page.get_by_label(re.compile("Text in path")).press_sequentially("needle-1")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(f"#run-{order}")).to_be_visible()
    expect(page).to_have_url(re.compile("q=needle-1"))
    page.get_by_label("Failed").check()
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    page.get_by_role("link", name="Show all runs").click()
    page.get_by_label("Endpoint", exact=True).select_option("get-price")
    expect(page.locator(f"#run-{order}")).to_have_count(0)
    expect(page.locator(f"#run-{price}")).to_be_visible()
    page.goto(f"{shop.engine}/runs?q={order[:20].lower()}")
    expect(page.locator(f"#run-{order}")).to_be_visible()


def test_input_is_text_whatever_it_is(page: Page, shop: Site) -> None:
    run_id = shop.order(EVIL)
    page.goto(f"{shop.engine}/runs/{run_id}")
    body = page.get_by_label("Body", exact=True).first
    expect(body).to_contain_text(EVIL)
    assert page.locator("main script").count() == 0
    page.goto(f"{shop.engine}/runs?q={EVIL}")
    expect(page.locator(f"#run-{run_id}")).to_be_visible()
    # A dialog, or an error of the policy, fails the test (see `page`).


def test_secrets_are_masked_and_not_copied(page: Page, shop: Site) -> None:
    headers = {"authorization": "Bearer top-secret", "x-tenant": "blue"}
    body = {"id": "masked", "items": []}
    response = shop.http.post(f"{shop.shop}/orders", json=body, headers=headers)
    page.goto(f"{shop.engine}/runs/{response.headers['x-run-id']}")
    expect(page.locator(".headers .masked").first).to_be_visible()
    assert "top-secret" not in page.content()
    curl = page.get_by_role("button", name="Copy as curl").get_attribute("data-copy-text")
    assert curl is not None
    assert curl.startswith(f"curl -X POST {shop.shop}/orders")


def test_an_event_from_the_editor(page: Page, shop: Site) -> None:
    run_id = shop.order("from-the-editor")
    page.goto(f"{shop.engine}/events")
    page.get_by_role("link", name=re.compile("Send an event|Send one")).first.click()
    page.get_by_label("Name").fill("order/packed")
    data = page.get_by_label("Data, in JSON")
    data.fill("{broken")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("data: not valid JSON")
    expect(data).to_have_value("{broken")
    data.fill('{"order": "from-the-editor"}')
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading", name="order/packed")).to_be_visible()
    page.get_by_role("link", name=re.compile("place-order")).click()
    expect(state(page)).to_have_text("Completed")
    assert run_id in page.url


def test_overview_and_apps(page: Page, shop: Site) -> None:
    shop.request("GET", "/prices/sku-1")
    page.goto(shop.engine)
    expect(page.locator(".plot canvas")).to_have_count(3)
    expect(page.locator("tbody tr", has_text="get-price")).to_be_visible()
    page.get_by_role("link", name="Last week").click()
    expect(page.get_by_role("link", name="Last week")).to_have_attribute("aria-current", "true")
    page.get_by_role("link", name="Apps", exact=True).click()
    expect(page.locator("tbody tr", has_text="get-price")).to_contain_text("GET /prices/")
    expect(page.locator("main")).to_contain_text("stephttp-py:v")


def test_the_keyboard_is_enough(page: Page, shop: Site) -> None:
    shop.request("GET", "/prices/sku-1")
    page.goto(shop.engine)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.type("gr")
    expect(page).to_have_url(re.compile("/runs$"))
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.locator("tbody tr:first-child a")).to_be_focused()
    page.keyboard.press("x")
    expect(page.locator("[data-chosen]")).to_have_text("1 chosen")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    before = page.locator("html").get_attribute("data-theme")
    page.keyboard.press("t")
    expect(page.locator("html")).not_to_have_attribute("data-theme", before or "")
    page.reload()
    expect(page.locator("html")).not_to_have_attribute("data-theme", before or "")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/runs/0"))


def test_the_page_finds_back_to_the_engine(page: Page, shop: Site) -> None:
    page.route("**/live", lambda route: route.abort())
    page.goto(f"{shop.engine}/runs")
    expect(page.locator("[data-live-state]")).to_have_attribute("data-live-state", "lost")
    run_id = shop.order("while-lost")
    page.unroute("**/live")
    is_live(page)
    expect(page.locator(f"#run-{run_id}")).to_be_visible()


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_is_wider_than_the_window(page: Page, shop: Site, width: int) -> None:
    failing = shop.request("POST", "/imports", name="x" * 300, failures=9)
    order = shop.order("wide-" + "y" * 300)
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("/", "/runs", f"/runs/{order}", f"/runs/{failing}", "/events", "/apps"):
        page.goto(f"{shop.engine}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def expect_stored(page: Page, shop: Site, run_id: str) -> None:
    """Open a run, which the application may not have told the engine of yet."""
    page.goto(f"{shop.engine}/runs")
    row = page.locator(f"#run-{run_id}")
    expect(row).to_contain_text("Completed")
    row.get_by_role("link").click()
    expect(state(page)).to_have_text("Completed")


def test_without_scripts_pages_still_work(browser: Any, shop: Site) -> None:
    run_id = shop.order("no-scripts")
    context = browser.new_context(java_script_enabled=False)
    page: Page = context.new_page()
    page.goto(f"{shop.engine}/runs")
    page.locator(f"#run-{run_id} a").click()
    page.get_by_role("button", name="Send the event").click()
    expect(page.get_by_text("The event was sent.")).to_be_visible()
    context.close()
    assert httpx2.get(f"{shop.engine}/health").status_code == 200
