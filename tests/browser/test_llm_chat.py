"""`examples/llm_chat`: words that come to a page, while the process that writes them is killed."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from examples.llm_chat.model import Model
from tests.acceptance.processes import STEPHTTP, Process, free_port

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import Page, expect

QUESTION = "what is durable about this answer?"
ANSWER = f"You asked: {QUESTION}"


class Slow(Model):
    """A model that comes to a stop in the middle of its first answer."""

    stopped = threading.Event()
    answers = 0

    def pause(self, number: int) -> None:
        """Stop after three words, until the test is over."""
        if number == 0:
            Slow.answers += 1
        if number == 3 and Slow.answers == 1:
            Slow.stopped.wait()


@pytest.fixture
def model() -> Generator[str]:
    """Where the model is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    Slow.stopped.set()
    server.shutdown()
    server.server_close()


def test_the_page_goes_on_when_the_process_that_answers_is_killed(
    page: Page, model: str, tmp_path: Path
) -> None:
    port = free_port()
    engine = [*STEPHTTP, "dev", "--port", "0", "--db", str(tmp_path / "runs.db")]
    app = [sys.executable, "-m", "uvicorn", "examples.llm_chat.app:app", "--port", str(port)]
    with Process(engine) as running:
        environment = {
            "INNGEST_DEV": running.wait_for(r"engine ready on (http://\S+)")[1],
            "CHAT_MODEL_URL": model,
            "CHAT_ORIGIN": f"http://127.0.0.1:{port}",
            "CHAT_LEASE": "1",
        }
        answer = page.get_by_role("status")
        with Process(app, env=environment) as first:
            first.wait_for("Uvicorn running on")
            page.goto(environment["CHAT_ORIGIN"])
            page.get_by_role("button", name="Ask").click()
            expect(answer).to_have_text("You asked: what", timeout=60_000)
            expect(page.locator("#state")).to_have_text(
                "answering; the engine knows of it", timeout=60_000
            )
            first.signal(signal.SIGKILL)
            first.wait()
        # The page says so, and waits for what comes.
        expect(page.locator("#state")).to_have_text("continuing", timeout=60_000)
        with Process(app, env=environment) as second:
            second.wait_for("Uvicorn running on")
            expect(page.locator("#state")).to_have_text("done", timeout=60_000)
            expect(answer).to_have_text(ANSWER)
        assert Slow.answers == 2
