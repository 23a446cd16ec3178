"""Callers in a browser wait for a result, at its own address and at `result_path`, each also behind
nginx, while the engine is killed and started again: a form whose handler is durable, with scripts
and without, `fetch` and `EventSource`."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.acceptance.processes import DEADLINE, eventually
from tests.acceptance.result_places import OWN_ADDRESS, Places

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import expect

Answer = tuple[int, str, str]
RECEIPT: Answer = (201, "7", "receipt")
PATIENCE = DEADLINE * 1000

FETCH = """async () => {
  const answer = await fetch("/checkout", { method: "POST" });
  return [answer.status, answer.headers.get("x-receipt"), await answer.text()];
}"""
FETCH_AGAIN = """async () => {
  const begun = await fetch("/checkout", { method: "POST", headers: { prefer: "respond-async" } });
  const link = begun.headers.get("location");
  for (;;) {
    try {
      const answer = await fetch(link);
      return [answer.status, answer.headers.get("x-receipt"), await answer.text()];
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}"""
FOLLOW = """async () => {
  const begun = await fetch("/checkout", { method: "POST", headers: { prefer: "respond-async" } });
  const link = begun.headers.get("location");
  return await new Promise((resolve) => {
    const follow = () => {
      const source = new EventSource(link);
      source.addEventListener("waiting", () => { window.follows = true; });
      source.addEventListener("response", (event) => { source.close(); resolve(event.data); });
      source.onerror = () => {
        if (source.readyState !== EventSource.CLOSED) return;
        window.refused = true;
        setTimeout(follow, 500);
      };
    };
    follow();
  });
}"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Generator[Places]:
    with ExitStack() as stack:
        yield Places(stack, tmp_path_factory.mktemp("places"))


class Form:
    """A page whose form was sent, and what its navigations were answered."""

    def __init__(self, context: Any, shop: str) -> None:
        self.page = context.new_page()
        self.page.goto(f"{shop}/")
        self._answers: list[Any] = []
        self._refused: list[str] = []
        self.page.on("response", self._note)
        self.page.get_by_role("button").click()
        expect(self.page.get_by_role("heading")).to_have_text("POST /checkout", timeout=PATIENCE)
        expect(self.page.locator("li.completed")).to_have_text("charge-card")
        expect(self.page.locator("#waiting")).to_have_text("Waiting for paid")
        self._address = self.page.url

    def _note(self, response: Any) -> None:
        if response.request.is_navigation_request():
            self._answers.append(response)
        if response.status == 502:
            self._refused.append(response.url)

    def until_refused(self, count: int) -> None:
        """Wait until what the page asked for was so often answered by nginx alone."""
        # Events come while the page is asked.
        eventually(lambda: self.page.title() and len(self._refused) >= count)

    def answer(self) -> Answer:
        """Return the handler's answer, once the page shows it."""
        expect(self.page.locator("body")).to_have_text("receipt", timeout=PATIENCE)
        last = self._answers[-1]
        return last.status, last.headers["x-receipt"], self.page.inner_text("body")

    def open_again(self) -> None:
        """Open the address once more, as a person does who sees that the page has failed."""
        self.page = self.page.context.new_page()
        self.page.on("response", self._note)
        self.page.goto(self._address)


def test_every_caller_in_a_browser_gets_the_answer_though_the_engine_is_killed_meanwhile(
    browser: Any, places: Places
) -> None:
    with_script = browser.new_context()
    without = browser.new_context(java_script_enabled=False)
    for context in (with_script, without):
        context.set_default_timeout(PATIENCE)
    forms: dict[tuple[str, str], Form] = {}
    calls: dict[tuple[str, str], Any] = {}
    for place, shop in places.shops.items():
        fetch = FETCH_AGAIN if place in OWN_ADDRESS else FETCH
        for name, script in (("fetch", fetch), ("EventSource", FOLLOW)):
            page = calls[place, name] = with_script.new_page()
            page.goto(f"{shop}/")
            page.evaluate(f"() => {{ window.got = ({script})(); }}")
        calls[place, "EventSource"].wait_for_function("() => window.follows")
        forms[place, "form"] = Form(with_script, shop)
        forms[place, "form without scripts"] = Form(without, shop)
    eventually(lambda: places.waiting() == len(forms) + len(calls))
    places.kill_engine()
    # What a proxy says meanwhile replaces no page but one without scripts.
    calls["nginx, engine", "EventSource"].wait_for_function("() => window.refused")
    forms["nginx, engine", "form"].until_refused(2)
    places.start_engine()
    places.pay()
    for place in OWN_ADDRESS:
        forms[place, "form without scripts"].open_again()
    got = {cell: form.answer() for cell, form in forms.items()}
    for (place, name), page in calls.items():
        said = page.evaluate("() => window.got")
        if name == "EventSource":
            answer = json.loads(said)["response"]
            headers = answer["headers"]
            said = [answer["statusCode"], headers["x-receipt"], answer["body"]]
        got[place, name] = tuple(said)
    assert got == dict.fromkeys([*forms, *calls], RECEIPT)
    for place in ("result_path", "nginx, result_path"):
        assert not calls[place, "EventSource"].evaluate("() => window.refused")
    for context in (with_script, without):
        context.close()
