"""What does an exactly-once step cost beside the same transaction without it, on PostgreSQL?

One handler, in this process, inserts a row in a transaction of SQLAlchemy (psycopg, a socket), once
and again: in the transaction alone, in a step around it (`step.run`), and in a step that is one
(`stephttp.integrations.sqlalchemy.transaction`), which inserts and updates a row of its own. They
take turns, so that all of them meet the same machine. The step's result is kept in memory until the
response, as for any step of a first call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from benchmarks import harness
from benchmarks.harness import Row
from stephttp.integrations.sqlalchemy import create_table, transaction
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step
from tests.databases import postgres, sockets

TURNS = 300
"""Of each kind in one round."""


def measure(folder: Path) -> list[Row]:
    rows = []
    with harness.engine(folder / "engine.db") as engine:
        for safe in (True, False):
            with postgres(safe=safe) as server:
                rows.append(_compared(engine.url, sockets(server, "psycopg"), safe))
    return rows


def _compared(engine_url: str, url: str, safe: bool) -> Row:
    database = create_engine(url)
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id BIGSERIAL PRIMARY KEY, item TEXT)"))
        create_table(connection)
    sessions = sessionmaker(database)

    def add(session: Session, item: str) -> int:
        statement = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
        number: int = session.execute(statement, {"item": item}).scalar_one()
        return number

    def bare(item: str) -> int:
        with sessions.begin() as session:
            return add(session, item)

    kinds: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare("a book"),
        "step.run": lambda: step.run("add", bare, "a book"),
        "transaction": lambda: transaction("add", sessions, add, "a book"),
    }
    micros: dict[str, list[float]] = {name: [] for name in kinds}

    def application(environ: Any, start_response: Any) -> list[bytes]:
        took: dict[str, list[int]] = {name: [] for name in kinds}
        for _ in range(TURNS):
            for name, do in kinds.items():
                began = time.perf_counter_ns()
                do()
                took[name].append(time.perf_counter_ns() - began)
        for name, times in took.items():
            micros[name].append(statistics.median(times) / 1000)
        start_response("200 OK", [])
        return [b""]

    provider = Provider(resolve("http://127.0.0.1", environ={"INNGEST_DEV": engine_url}))
    app: Any = provider.wsgi(application)
    for _ in range(harness.ROUNDS + 1):
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        for _ in app(environ, lambda status, headers, error=None: None):
            pass
    assert provider.close()
    with database.connect() as connection:
        for table, kinds_of_it in (("orders", 3), ("stephttp_steps", 1)):
            found = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            assert found == kinds_of_it * TURNS * (harness.ROUNDS + 1), (table, found)
    database.dispose()
    for times in micros.values():
        del times[0]  # the first round warms up
    middle = {name: statistics.median(times) for name, times in micros.items()}
    ratios = [one / other for one, other in zip(micros["transaction"], micros["bare"], strict=True)]
    disk = "on the disk" if safe else "in memory only (fsync=off)"
    return Row(
        f"exactly-once step against its bare transaction on PostgreSQL, commits {disk}",
        statistics.median(ratios),
        "times",
        spread=(min(ratios), max(ratios)),
        note=", ".join(f"{name} {took:.0f} µs" for name, took in middle.items()),
    )
