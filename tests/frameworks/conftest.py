"""A real engine in this process, and each application in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Generator
from typing import Any

import httpx2
import pytest
import uvicorn

from stephttp.engine.app import create_app
from stephttp.engine.model.settings import Backoff, Settings
from tests.acceptance.processes import DEADLINE, Process
from tests.frameworks.rows import ROWS, Row


class Engine:
    """The engine on a thread of its own, in front of a port that the kernel chose."""

    def __init__(self) -> None:
        retry = Backoff(first=0.01, jitter=0)
        app = create_app(Settings(retry=retry, unreachable=retry))
        self._engine = app.state.engine
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(DEADLINE)
        self._loop.close()
        self._listener.close()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._server.serve(sockets=[self._listener]))

    def wait_for_end(self, run_id: str) -> None:
        """Wait until a run that its application reports in the background has ended."""

        async def ended() -> None:
            with self._engine.waiters.waiting(run_id) as event:
                if not await self._is_stored(run_id):
                    await asyncio.wait_for(event.wait(), DEADLINE)

        asyncio.run_coroutine_threadsafe(ended(), self._loop).result()

    async def _is_stored(self, run_id: str) -> bool:
        query = "SELECT count(*) FROM runs WHERE run_id = ?"
        count: int = await self._engine.store.read(
            lambda connection: connection.execute(query, (run_id,)).fetchone()[0]
        )
        return count > 0


class Application:
    """One application of the matrix, as its callers see it."""

    def __init__(self, row: Row, url: str, engine: Engine) -> None:
        self.row = row
        self._engine = engine
        # A server may close a connection on which it had to answer for the application.
        fresh = httpx2.Limits(max_keepalive_connections=0)
        self._http = httpx2.Client(base_url=url, timeout=DEADLINE, limits=fresh)
        self._api = httpx2.Client(base_url=engine.url, timeout=DEADLINE)

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request; redirects are not followed."""
        return self._http.request(method, path, **options)

    def finally_answers(self, first: httpx2.Response) -> httpx2.Response:
        """The answer behind the redirect of a request that waits."""
        assert first.status_code == 303, (first.status_code, first.text)
        return self._api.get(first.headers["location"])

    def run(self, response: httpx2.Response) -> dict[str, Any]:
        """What the engine knows of the run of a response, once it has ended."""
        run_id = response.headers["x-run-id"]
        self._engine.wait_for_end(run_id)
        data: dict[str, Any] = self._api.get(f"/v1/runs/{run_id}").json()["data"]
        return data

    def steps(self, response: httpx2.Response) -> dict[str, dict[str, Any]]:
        """The steps of such a run, by their names."""
        answer = self._api.get(f"/v1/runs/{response.headers['x-run-id']}/steps")
        return {step["name"]: step for step in answer.json()["data"]}

    def close(self) -> None:
        self._http.close()
        self._api.close()


@pytest.fixture(scope="session")
def engine() -> Generator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture(scope="module", params=ROWS, ids=[row.name for row in ROWS])
def app(engine: Engine, request: pytest.FixtureRequest) -> Generator[Application]:
    """The application of one row: its process serves all scenarios, then ends in order."""
    row: Row = request.param
    with Process(row.command, env={"INNGEST_DEV": engine.url}) as process:
        port = process.wait_for(row.listening)[1]
        application = Application(row, f"http://127.0.0.1:{port}", engine)
        yield application
        application.close()
        process.signal(signal.SIGTERM)
        assert process.wait() in (0, -signal.SIGTERM), process.said()
        for trouble in ("never retrieved", "never awaited", "destroyed", "Exception ignored"):
            assert trouble not in process.said()
