"""Servers without asyncio: trio's event loop, and gevent's greenlets."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.acceptance.processes import DEADLINE, Process, eventually
from tests.frameworks.conftest import Engine
from tests.frameworks.rows import GUNICORN, HYPERCORN, ON_GUNICORN, ON_HYPERCORN

APPS = "tests.frameworks.apps"
WORDS = "steps need asyncio, and this request is served on another event loop"
SIGNED = {"x-run-id": "01K00000000000000000000000", "x-inngest-signature": "t=1&s=ab"}


@pytest.fixture(scope="module")
def real() -> Generator[httpx2.Client]:
    """Hypercorn's own trio worker."""
    command = [sys.executable, *HYPERCORN, "--worker-class", "trio", f"{APPS}.fastapi_trio:app"]
    with Process(command, env={"INNGEST_DEV": "http://127.0.0.1:9"}) as process:
        port = process.wait_for(ON_HYPERCORN)[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as client:
            yield client
        process.signal(signal.SIGTERM)
        assert process.wait() in (0, -signal.SIGTERM), process.said()


@pytest.fixture(scope="module")
def tested() -> Generator[TestClient]:
    """Starlette's test client with anyio's backend, lifespan included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INNGEST_DEV", "http://127.0.0.1:9")
        from tests.frameworks.apps.fastapi_trio import app

        with TestClient(app, backend="trio") as client:
            yield client


@pytest.mark.parametrize("server", ["real", "tested"])
def test_on_trio_requests_without_steps_pass_and_steps_say_what_they_need(
    server: str, request: pytest.FixtureRequest
) -> None:
    client: httpx2.Client = request.getfixturevalue(server)
    assert client.get("/plain").json() == "plain"
    assert client.post("/body", content=b"sent").json() == "sent"
    assert client.get("/def").json() == "def"
    assert client.get("/stream").text == "ab"
    for path in ("/step", "/sleep", "/parallel", "/def/step"):
        answer = client.get(path)
        assert (answer.status_code, WORDS in answer.text) == (501, True), answer.text
    refused = [
        client.get("/plain", headers=SIGNED),
        client.get("/result?token=t"),
        client.post("/body", headers={"idempotency-key": "k"}),
    ]
    for answer in refused:
        assert answer.status_code == 503, answer.text
        assert WORDS in answer.json()["error"]
        assert answer.headers["retry-after"]


def test_greenlets_of_an_application_that_was_loaded_before_gevent_share_no_lock(
    engine: Engine,
) -> None:
    command = [
        sys.executable, *GUNICORN, "--preload", "--worker-class", "gevent", "--workers", "2",
        f"{APPS}.flask_greenlets:app",
    ]  # fmt: skip
    env = {"INNGEST_DEV": engine.url, "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "")}
    with Process(command, env=env) as process:
        url = f"http://127.0.0.1:{process.wait_for(ON_GUNICORN)[1]}"
        with httpx2.Client(base_url=url, timeout=DEADLINE, follow_redirects=True) as client:

            def call(number: int) -> tuple[str, httpx2.Response]:
                path = f"{'slow' if number % 2 else 'quick'}/{number}"
                return path.replace("/", " "), client.get(f"/{path}")

            with ThreadPoolExecutor(8) as callers:
                answers = list(callers.map(call, range(32)))
            assert [answer.text for _, answer in answers] == [text for text, _ in answers]

        def all_ended() -> bool:
            runs = httpx2.get(f"{engine.url}/v1/runs?limit=100", timeout=DEADLINE).json()["data"]
            ended = {run["run_id"] for run in runs if run["status"] == "Completed"}
            return all((a.history or [a])[0].headers["x-run-id"] in ended for _, a in answers)

        assert eventually(all_ended)
        process.signal(signal.SIGTERM)
        assert process.wait() in (0, -signal.SIGTERM), process.said()
    for trouble in ("Traceback", "un-acquired", "BlockingSwitchOutError", "LoopExit"):
        assert trouble not in process.said(), process.said()
