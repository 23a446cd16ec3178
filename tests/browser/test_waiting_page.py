"""Callers in a browser, while the engine is killed and started again: a form whose handler is
durable, the page until its run has ended, `fetch` and `EventSource`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.acceptance.processes import DEADLINE, ROOT, STEPHTTP, Process, eventually, free_port

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import expect

FETCH = """async () => {
  const answer = await fetch("/orders", { method: "POST" });
  return [answer.status, answer.headers.get("x-receipt"), await answer.text()];
}"""
FOLLOW = """async () => {
  const begun = await fetch("/orders", { method: "POST", headers: { prefer: "respond-async" } });
  const source = new EventSource(begun.headers.get("location"));
  return await new Promise((resolve) => {
    source.addEventListener("response", (event) => { source.close(); resolve(event.data); });
  });
}"""


class Site:
    """A shop with a form, and its engine, which can be killed."""

    def __init__(self, stack: ExitStack, folder: Any) -> None:
        self._stack, self._folder, self._port = stack, folder, free_port()
        self.engine = f"http://127.0.0.1:{self._port}"
        self.start()
        port = free_port()
        self.shop = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "uvicorn", "--port", str(port)]
        env = {"SHOP_ORIGIN": self.shop, "INNGEST_DEV": self.engine, "PYTHONPATH": str(ROOT)}
        shop = Process([*command, "tests.browser.form_shop:app"], env=env)
        stack.enter_context(shop).wait_for("running on")

    def start(self) -> None:
        database = str(self._folder / "runs.sqlite3")
        command = [*STEPHTTP, "dev", "--port", str(self._port), "--hold", "2s", "--db", database]
        self._process = self._stack.enter_context(Process(command))
        self._process.wait_for("engine ready")

    def restart(self) -> None:
        self._process.signal(signal.SIGKILL)
        self._process.wait()
        self.start()

    def pay(self) -> None:
        event = {"name": "order/paid", "data": {}}
        httpx2.post(f"{self.engine}/e/k", json=event, timeout=DEADLINE).raise_for_status()

    def until_waiting(self, count: int) -> None:
        def waiting() -> bool:
            runs = httpx2.get(f"{self.engine}/v1/runs?limit=100", timeout=DEADLINE).json()["data"]
            return bool(sum(run["status"] == "Running" for run in runs) == count)

        eventually(waiting)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    with ExitStack() as stack:
        yield Site(stack, tmp_path_factory.mktemp("site"))


def test_a_form_may_have_a_durable_handler(browser: Any, site: Site) -> None:
    with_script = browser.new_context()
    without = browser.new_context(java_script_enabled=False)
    pages = [context.new_page() for context in (with_script, without)]
    others = [with_script.new_page() for _ in range(2)]
    for page in (*pages, *others):
        page.set_default_timeout(DEADLINE * 1000)
        page.goto(f"{site.shop}/")
    for page, script in zip(others, (FETCH, FOLLOW), strict=True):
        page.evaluate(f"() => {{ window.got = ({script})(); }}")
    for page in pages:
        page.get_by_role("button").click()
        expect(page.get_by_role("heading")).to_have_text("place-order")
        expect(page.locator("li.completed")).to_have_text("charge-card")
        expect(page.locator("#waiting")).to_have_text("Waiting for paid")
    site.until_waiting(4)
    site.restart()
    site.pay()
    for page in pages:
        expect(page.get_by_role("heading")).to_have_text("Thank you", timeout=DEADLINE * 1000)
    fetched = others[0].evaluate("() => window.got")
    assert fetched[:2] == [201, "7"]
    followed = json.loads(others[1].evaluate("() => window.got"))
    assert followed["response"]["statusCode"] == 201
    for context in (with_script, without):
        context.close()
