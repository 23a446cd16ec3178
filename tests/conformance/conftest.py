"""The real TypeScript SDK beside a real engine: two processes, and a client between them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import needs
from tests.acceptance.processes import ROOT, STEPHTTP, Process

APP = ROOT / "conformance" / "typescript"
_WAIT = 60.0
_KEYS = count(1)


class Peer:
    """The app of `conformance/typescript`, and the engine that it talks to.

    Args:
        app: the app's address.
        engine: the engine's address.
        key: names this test's runs to the app.
    """

    def __init__(self, app: str, engine: str, key: str) -> None:
        self.app = app
        self.engine = engine
        self.key = key
        self.http = httpx2.Client(timeout=_WAIT)

    def get(self, path: str, **query: str) -> httpx2.Response:
        """Ask an endpoint, as a user would; redirects are not followed."""
        return self.http.get(f"{self.app}{path}", params={"key": self.key, **query})

    def outcome(self, path: str, **query: str) -> httpx2.Response:
        """The final answer of an endpoint that goes async, from where it redirects to."""
        response = self.get(path, **query)
        assert response.status_code == 302, response.text
        location = response.headers["location"]
        assert location.startswith(f"{self.engine}/v1/http/runs/"), location
        return self.http.get(location)

    def counts(self) -> dict[str, int]:
        """How often the handler and each of the steps ran in this test."""
        counts: dict[str, int] = self.http.get(
            f"{self.app}/counts", params={"key": self.key}
        ).json()
        return counts

    def run(self, response: httpx2.Response) -> dict[str, Any]:
        """What the engine tells of the run that an answer belongs to."""
        location = httpx2.URL(response.headers.get("location") or str(response.url))
        run_id = location.params.get("runId") or location.path.split("/")[4]
        data: dict[str, Any] = self.http.get(f"{self.engine}/v1/runs/{run_id}").json()["data"]
        return data

    def last_run(self, slug: str) -> dict[str, Any]:
        """The newest run of an endpoint."""
        runs = self.http.get(f"{self.engine}/v1/runs", params={"limit": "100"}).json()["data"]
        newest: dict[str, Any] = next(run for run in runs if run["function"] == slug)
        return newest


@pytest.fixture(scope="session")
def typescript_app() -> Path:
    """The app with npm's packages installed."""
    needs.command("node", "nodejs")
    needs.npm_packages(APP)
    return APP


@pytest.fixture(scope="module")
def processes(typescript_app: Path) -> Generator[tuple[str, str]]:
    """`stephttp dev` with the app beside it; the addresses of app and engine."""
    command = [*STEPHTTP, "dev", "--port", "0", "--", "node", str(typescript_app / "app.mjs")]
    with Process(command) as dev:
        engine = dev.wait_for(r"engine ready on (http://\S+)")[1]
        yield dev.wait_for(r"listening on (http://\S+)")[1], engine


@contextmanager
def signed_peer(app: Path, db: Path, engine_key: str, **environment: str) -> Generator[Peer]:
    """`stephttp start` with a signing key, and an app that is told about keys by `environment`."""
    command = [*STEPHTTP, "start", "--port", "0", "--db", str(db), "--log-format", "text"]
    keys = ["--signing-key", engine_key, "--event-key", "event-key", "--allow-host", "127.0.0.1"]
    with Process([*command, *keys]) as server:
        engine = server.wait_for(r'engine\.start engine ready url="(\S+)"')[1]
        env = {"INNGEST_BASE_URL": engine, "INNGEST_EVENT_KEY": "event-key", **environment}
        with Process(["node", str(app / "app.mjs")], env=env) as node:
            address = node.wait_for(r"listening on (http://\S+)")[1]
            peer = Peer(address, engine, key=f"k{next(_KEYS)}")
            peer.http.headers["authorization"] = f"Bearer {engine_key}"
            with peer.http:
                yield peer


@pytest.fixture
def peer(processes: tuple[str, str]) -> Generator[Peer]:
    """App and engine, for one test."""
    made = Peer(*processes, key=f"k{next(_KEYS)}")
    with made.http:
        yield made
