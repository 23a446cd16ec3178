"""Applications that are killed again and again: each step's row is there once, with its result."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from base64 import b64decode
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, create_engine, text

from stephttp._wire.ids import hash_step_id
from stephttp.integrations.sqlalchemy import create_table
from tests.acceptance.processes import DEADLINE, ROOT, Process
from tests.crashing_app import NAMES
from tests.databases import sockets
from tests.examples import examples

RUNS = examples(push=20, long=334)
"""Of each kind."""
AT_ONCE = 8

# An engine that makes its calls again soon.
ENGINE = """
import uvicorn
from stephttp.engine.app import create_app
from stephttp.engine.model.settings import Backoff, Settings

soon = Backoff(first=0.02, longest=0.1)
settings = Settings(db_path="{}", concurrency=8, retry=soon, unreachable=soon)
uvicorn.run(create_app(settings), port=0, log_level="info", access_log=False)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Generator[str]:
    program = ENGINE.format(tmp_path / "engine.db")
    with Process([sys.executable, "-c", program], cwd=ROOT) as process:
        yield process.wait_for(r"running on (http://\S+)")[1]


def database(url: str) -> Engine:
    made = create_engine(url)
    with made.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS writes"))
        connection.execute(text("DROP TABLE IF EXISTS stephttp_steps"))
        connection.execute(text("CREATE TABLE writes (step VARCHAR(80), token VARCHAR(40))"))
        create_table(connection)
    return made


async def call(client: httpx2.AsyncClient, url: str) -> None:
    """Start the runs of one application, and wait for their ends."""
    free = asyncio.Semaphore(AT_ONCE)

    async def start() -> None:
        async with free:
            while True:
                try:
                    answer = await client.post(url)
                except httpx2.TransportError:
                    continue  # it was killed; the run may be there or not
                assert answer.status_code == 303, answer.text
                await client.get(answer.headers["location"])
                return

    await asyncio.gather(*(start() for _ in range(RUNS)))


async def call_all(urls: list[str], engine: str) -> list[dict[str, Any]]:
    """Start the runs of all applications, and wait for their ends; all that the engine has."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(limits=limits, timeout=300) as client:
        await asyncio.gather(*(call(client, url) for url in urls))
        # The callers of some runs have gone: their process was killed before it could answer.
        async with asyncio.timeout(DEADLINE):
            while True:
                runs = [run async for run in runs_of(engine, client)]
                if all(run["status"] != "Running" for run in runs):
                    return runs


async def runs_of(engine: str, client: httpx2.AsyncClient) -> AsyncGenerator[dict[str, Any]]:
    query: dict[str, str] = {}
    while True:
        page = (await client.get(f"{engine}/v1/runs", params=query)).json()
        for run in page["data"]:
            yield (await client.get(f"{engine}/v1/runs/{run['run_id']}")).json()["data"]
        cursor = page["metadata"]["page"]["older"]
        if not cursor:
            return
        query = {"cursor": cursor}


def answer(run: dict[str, Any]) -> list[str]:
    """What the handler of a run returned."""
    assert run["status"] == "Completed", run
    body: list[str] = json.loads(json.loads(b64decode(run["output"]))["body"])
    return body


def test_every_row_is_there_once(engine: str, tmp_path: Path, postgres_folder: Path) -> None:
    """One application of each kind, all of them at once."""
    sqlite, postgres = f"sqlite:///{tmp_path}/app.sqlite3", sockets(postgres_folder, "psycopg")
    kinds = {
        "sqlalchemy": sockets(postgres_folder, "asyncpg"),
        "django": str(postgres_folder),
        "blocking": sqlite,
    }
    with ExitStack() as stack:
        databases = [database(url) for url in (sqlite, postgres)]
        for one in databases:
            stack.callback(one.dispose)
        apps = {
            kind: stack.enter_context(
                Process(
                    [sys.executable, "-m", "tests.crashing_app", kind, argument],
                    env={"INNGEST_DEV": engine},
                )
            )
            for kind, argument in kinds.items()
        }
        ports = {kind: app.wait_for(r"listening on (\d+)")[1] for kind, app in apps.items()}
        urls = [f"http://127.0.0.1:{port}/{kind}" for kind, port in ports.items()]
        runs = asyncio.run(call_all(urls, engine))
        for kind, app in apps.items():
            app.signal(signal.SIGTERM)
            killed = app.wait_for(r"killed (\d+) exactly, (\d+) at random")
            assert app.wait() == 0
            print(f"{kind}: {killed[0]}")
            assert int(killed[1]) > 0
        written: list[tuple[str, str]] = []
        results: dict[str, str] = {}
        for one in databases:
            with one.connect() as connection:
                written += map(tuple, connection.execute(text("SELECT step, token FROM writes")))
                kept = connection.execute(
                    text("SELECT run_id, step_hash, result FROM stephttp_steps")
                )
                results |= {f"{run}-{step}": json.loads(result) for run, step, result in kept}
    tokens = {
        f"{run['run_id']}-{hash_step_id(name)}": token
        for run in runs
        for name, token in zip(NAMES, answer(run), strict=True)
    }
    print(f"{len(runs)} runs, {len(written)} rows")
    assert len(runs) >= RUNS * len(kinds)
    # Each step of each run once, and with the result that its run had of it.
    assert len(written) == len(runs) * len(NAMES)
    assert dict(written) == results == tokens
