"""People invoke, pause and resume functions: with the mouse, by keys alone, and without scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.conftest import DESKTOP, Site
from tests.browser.test_axe import violations_in_each_look

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import Page, expect


@pytest.fixture(autouse=True)
def _patience() -> None:
    expect.set_options(timeout=20_000)


def is_result(page: Page, total: int) -> None:
    expect(page.locator(".run-head .state")).to_have_text("Completed")
    expect(page.locator("main")).to_contain_text(f'"total": {total}')


def test_by_keys_alone(page: Page, shop: Site, axe: str) -> None:
    page.goto(f"{shop.engine}/apps")
    page.get_by_role("link", name="shop-send-invoice").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Send an invoice")
    editor = page.get_by_label("Data of the event, in JSON")
    editor.focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type('{"total": 17')
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Invoke")).to_be_focused()
    page.keyboard.press("Enter")
    complaint = page.get_by_role("alert")
    expect(complaint).to_contain_text("data: not valid JSON")
    expect(editor).to_be_focused()
    expect(editor).to_have_attribute("aria-invalid", "true")
    expect(editor).to_have_accessible_description(complaint.inner_text())
    assert violations_in_each_look(page, axe) == {}
    page.keyboard.press("ControlOrMeta+End")
    page.keyboard.type("}")
    expect(complaint).to_be_hidden()
    expect(editor).not_to_have_attribute("aria-invalid", "true")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="invoked")).to_be_visible()
    is_result(page, 17)


def test_what_is_written_stays_while_runs_come(page: Page, shop: Site) -> None:
    page.goto(f"{shop.engine}/functions/{shop.function('shop-send-invoice')}")
    expect(page.locator("[data-live-state]")).to_have_attribute("data-live-state", "on")
    editor = page.get_by_label("Data of the event, in JSON")
    editor.fill('{"total": ')
    page.get_by_role("button", name="Invoke").click()
    expect(page.get_by_role("alert")).to_be_visible()
    runs = page.locator("[data-rows] [data-row]")
    before = runs.count()
    shop.http.post(f"{shop.engine}/invoke/shop-send-invoice", json={"data": {"total": 1}})
    expect(runs).to_have_count(before + 1)
    expect(editor).to_have_value('{"total": ')
    expect(page.get_by_role("alert")).to_be_visible()


def test_without_scripts(browser: Any, shop: Site) -> None:
    context = browser.new_context(viewport=DESKTOP, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{shop.engine}/functions/{shop.function('shop-send-invoice')}")
    editor = page.get_by_label("Data of the event, in JSON")
    editor.fill('{"total": \n3, }')
    page.get_by_role("button", name="Invoke").click()
    expect(page.get_by_role("alert")).to_contain_text("(line 2, column 4)")
    expect(editor).to_have_value('{"total": \n3, }')
    editor.fill('{"total": 3}')
    page.get_by_role("button", name="Invoke").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("shop-send-invoice")
    page.wait_for_url("**/runs/*")
    run_id = page.url.partition("?")[0].rpartition("/")[2]
    assert shop.run(run_id)["event_id"]
    context.close()


def test_pause_and_resume(page: Page, shop: Site) -> None:
    page.goto(f"{shop.engine}/functions/{shop.function('shop-clean-up')}")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Paused")
    expect(page.get_by_role("button", name="Invoke")).to_have_count(0)
    refused = shop.http.post(f"{shop.engine}/invoke/shop-clean-up", json={})
    assert (refused.status_code, json.loads(refused.content)["status"]) == (409, 409)
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", level=1)).not_to_contain_text("Paused")
    assert shop.http.post(f"{shop.engine}/invoke/shop-clean-up", json={}).status_code == 200


def test_what_waits_is_seen(page: Page, shop: Site) -> None:
    shop.queue_up()
    page.goto(f"{shop.engine}/apps")
    page.keyboard.press("g")
    page.keyboard.press("q")
    expect(page.get_by_role("heading", level=1)).to_have_text("Queues")
    row = page.get_by_role("row").filter(has_text="ground floor")
    expect(row).to_contain_text("shop-print-label")
    expect(row).to_contain_text("at most 1 run starts in 1 h (1 more at once)")
    expect(row.get_by_role("cell").last).to_have_text("2")
    expect(page.locator("[data-live-state]")).to_have_attribute("data-live-state", "on")
    shop.queue_up()
    expect(row.get_by_role("cell").last).to_have_text("6")
    page.get_by_role("link", name="shop-clean-up").first.click()
    page.get_by_role("button", name="Invoke").click()
    expect(page.get_by_role("status").filter(has_text="start later")).to_be_visible()
    expect(page.get_by_role("heading", name="What waits behind its limits")).to_be_visible()
