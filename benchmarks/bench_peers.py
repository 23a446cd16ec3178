"""What do other libraries for durable steps cost? The same two steps in each, 16 connections.

DBOS keeps its steps in SQLite, in the process of the application, before it answers. The
TypeScript SDK of Inngest uses the stephttp engine, and reports runs as the stephttp SDK does, but
one by one.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from benchmarks import harness, place
from benchmarks.harness import Row
from benchmarks.place import MissingError

PATH = "/orders/book"


def measure(folder: Path) -> list[Row]:
    rows = []
    for name, peer in (
        ("DBOS (SQLite)", dbos),
        ("the TypeScript SDK on the stephttp engine", typescript),
    ):
        try:
            rows.append(peer(folder, name))
        except MissingError as error:
            question = f"requests with 2 steps, stephttp against {name}"
            rows.append(Row(question, math.nan, "times", note=f"not measured: {error}"))
    return rows


def dbos(folder: Path, name: str) -> Row:
    place.pip("dbos")
    ours, theirs = folder / "ours.db", folder / "dbos.db"
    env = {"DBOS_FILE": str(theirs)}
    with (
        harness.engine(ours) as engine,
        harness.uvicorn("apps:durable", engine.url) as durable,
        harness.uvicorn("peers.dbos_app:app", env=env) as peer,
    ):
        rates, requests = compare(durable.url, peer.url, ours)
    stored = harness.count(theirs, "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'")
    assert stored >= requests, f"{stored} workflows of {requests} requests"
    return row(name, rates, f"all {requests} workflows of DBOS are stored")


def typescript(folder: Path, name: str) -> Row:
    modules = place.npm("inngest")
    ours, theirs = folder / "python.db", folder / "typescript.db"
    script = modules / "app.mjs"
    script.write_text((place.PEERS / "app.mjs").read_text())
    with (
        harness.engine(ours) as engine,
        harness.engine(theirs) as other,
        harness.uvicorn("apps:durable", engine.url) as durable,
        harness.started(["node", str(script)], r"listening on (http://\S+)",
                        {"INNGEST_DEV": other.url}) as peer,
    ):  # fmt: skip
        rates, requests = compare(durable.url, peer.url, ours)
        harness.arrived(theirs, requests, steps=2, in_flight=16 * (harness.ROUNDS + 1))
    return row(name, rates, f"all {requests} runs of the peer arrived once")


def compare(ours: str, theirs: str, db: Path) -> tuple[dict[str, list[float]], int]:
    """Return the rates of both, and the number of requests that the peer has answered."""
    mine = harness.load(ours + PATH, seconds=1).requests
    requests = harness.load(theirs + PATH, seconds=1).requests
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(harness.ROUNDS):
        done = harness.load(ours + PATH)
        rates["ours"].append(done.per_second)
        mine += done.requests
        harness.arrived(db, mine, steps=2, in_flight=16 * (harness.ROUNDS + 1))
        done = harness.load(theirs + PATH)
        rates["theirs"].append(done.per_second)
        requests += done.requests
    return rates, requests


def row(name: str, rates: dict[str, list[float]], note: str) -> Row:
    question = f"requests with 2 steps, stephttp against {name}"
    made = harness.compared(question, rates, "ours", "theirs", unit="times", note=note)
    made.peers = {
        "stephttp, /s": statistics.median(rates["ours"]),
        f"{name}, /s": statistics.median(rates["theirs"]),
    }
    return made
