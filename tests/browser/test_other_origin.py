"""A page of another origin fetches what waits; docs/responses.md says what works."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.acceptance.processes import STEPHTTP, Process, free_port

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import Browser

FETCH = """async ([url, credentials]) => {
    const headers = {"content-type": "application/json"};
    const options = {method: "POST", headers, credentials, body: '{"a": 1}'};
    try {
        const answer = await fetch(url, options);
        return [answer.status, answer.headers.get("x-report"), await answer.json()];
    } catch (error) {
        return error.name;
    }
}"""


class Page(BaseHTTPRequestHandler):
    """An empty page. Browsers let none but those of the same machine call an API there."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def other_origin() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_page_of_another_origin_follows_the_redirect(browser: Browser, other_origin: str) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    app = "tests.browser.other_origin:app"
    server = [sys.executable, "-m", "uvicorn", app, "--port", str(port)]
    command = [*STEPHTTP, "dev", "--port", "0", "--", *server]
    with Process(command, env={"SHOP_ORIGIN": api}) as process:
        process.wait_for("Uvicorn running on")
        context = browser.new_context()
        context.add_cookies([{"name": "session", "value": "s1", "url": api}])
        page = context.new_page()
        page.goto(other_origin)

        def fetched(path: str, credentials: str) -> Any:
            return page.evaluate(FETCH, [f"{api}{path}/report", credentials])

        assert fetched("/own", "include") == [201, "7", ["s1", {"a": 1}]]
        assert fetched("/own", "omit") == [201, "7", [None, {"a": 1}]]
        assert fetched("/engine", "omit") == [201, "7", [None, {"a": 1}]]
        assert fetched("/engine", "include") == "TypeError", "the engine allows no credentials"
        context.close()
