"""A real browser before a real engine with a real application, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import needs
from tests.acceptance.processes import STEPHTTP, Process, free_port

HERE = Path(__file__).parent
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
"""The headless shell is the same engine without windows, at two thirds of the processor time."""
DESKTOP = {"width": 1280, "height": 900}


def chromium() -> str | None:
    """Where the browser is; `CHROMIUM` may say so."""
    found = (shutil.which(name) for name in NAMES)
    return os.environ.get("CHROMIUM") or next((path for path in found if path), None)


class Site:
    """An engine, the shop of `shop.py`, and ways to use both without a browser.

    Args:
        engine: the engine's address.
        shop: the shop's address.
    """

    def __init__(self, engine: str, shop: str) -> None:
        self.engine = engine
        self.shop = shop
        self.http = httpx2.Client(timeout=30)

    def request(self, method: str, path: str, **body: Any) -> str:
        """Ask the shop; the id of the run that this makes."""
        response = self.http.request(method, f"{self.shop}{path}", json=body or None)
        run_id: str = response.headers["x-run-id"]
        return run_id

    def order(self, name: str, **more: Any) -> str:
        """An order, which waits until its parcel is packed."""
        return self.request("POST", "/orders", id=name, items=["book"], **more)

    def pack(self, name: str) -> None:
        """Send the event that an order waits for."""
        event = {"name": "order/packed", "data": {"order": name}}
        self.http.post(f"{self.engine}/e/key", json=event).raise_for_status()

    def function(self, slug: str) -> str:
        """The id of a function."""
        listed = self.http.get(f"{self.engine}/v1/stephttp/functions").json()["data"]
        (found,) = (one["function_id"] for one in listed if one["function"] == slug)
        return str(found)

    def queue_up(self) -> None:
        """Let labels wait for their printers, and an event be held."""
        labels = [{"printer": name} for name in ("ground floor", "attic", "ground floor")]
        sent = [{"name": "parcel/packed", "data": one} for one in (*labels, *labels)]
        sent.append({"name": "day/ended", "data": {}})
        self.http.post(f"{self.engine}/e/key", json=sent).raise_for_status()

    def run(self, run_id: str) -> dict[str, Any]:
        """What the engine says of a run."""
        data: dict[str, Any] = self.http.get(f"{self.engine}/v1/runs/{run_id}").json()["data"]
        return data


@contextmanager
def site(*options: str, port: int | None = None, functions: bool = False) -> Generator[Site]:
    """`stephttp dev` with the shop beside it, on a port that may be given, and with the shop's
    functions if they are wanted."""
    port = port or free_port()
    shop = f"http://127.0.0.1:{port}"
    server = [sys.executable, "-m", "uvicorn", "tests.browser.shop:app", "--port", str(port)]
    served = ("--app", f"{shop}/api/inngest") if functions else ()
    command = [*STEPHTTP, "dev", "--port", "0", *served, *options, "--", *server]
    with Process(command, env={"SHOP_ORIGIN": shop}) as process:
        engine = process.wait_for(r"engine ready on (\S+)").group(1)
        process.wait_for("Uvicorn running on")  # only then it listens
        if functions:
            process.wait_for(r"functions at \S+: registered")
        made = Site(engine, shop)
        try:
            yield made
        finally:
            made.http.close()


@pytest.fixture(scope="module")
def shop() -> Generator[Site]:
    """A site that the tests of a module share."""
    with site(functions=True) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    """A headless browser. It goes before tests with an event loop of their own come."""
    path = chromium()
    if path is None:
        needs.lacking("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # In containers there is no sandbox to be had; the pages are our own.
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any) -> Generator[Any]:
    """An empty page. Whatever its console complains of (the policy, a script) fails the test."""
    context = browser.new_context(viewport=DESKTOP, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    made = context.new_page()
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda said: complaints.extend([said.text] if said.type == "error" else []))

    def dismiss(dialog: Any) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    made.on("dialog", dismiss)
    yield made
    context.close()
    expected = ("Failed to load resource", "net::ERR")
    assert [text for text in complaints if not any(one in text for one in expected)] == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from npm."""
    needs.npm_packages(HERE)
    return (HERE / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
