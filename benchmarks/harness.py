"""Servers in processes of their own, load from wrk, and results as rows of a table."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.place import ROOT, python_of, say, wrk

HERE = Path(__file__).resolve().parent
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
"""Of one round of load."""
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "4"))
DEADLINE = 60.0


@dataclass
class Row:
    """One line of the table.

    Attributes:
        question: the question of the benchmark.
        figure: the answer, in `unit`: the median, or a ratio of medians.
        goal: the figure to reach, with its sense: `">= 0.70"`.
        spread: the lowest and the highest of the rounds.
        peers: other figures of the same run, in the same unit.
        note: a remark.
    """

    question: str
    figure: float
    unit: str
    goal: str = ""
    spread: tuple[float, float] | None = None
    peers: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Return whether the goal is reached, or `None` without a goal."""
        if not self.goal:
            return None
        sense, _, number = self.goal.partition(" ")
        goal = float(number.replace(",", ""))
        return self.figure >= goal if sense == ">=" else self.figure <= goal

    def data(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        return {**asdict(self), "reached": self.reached}


@dataclass
class Server:
    """A server's process."""

    url: str
    process: subprocess.Popen[str]

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Return the resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def started(
    command: Sequence[str], ready: str, env: Mapping[str, str] | None = None, *, cwd: Path = HERE
) -> Generator[Server]:
    """Run a server that prints its URL in a line that matches `ready`."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if found := re.search(ready, line):
                break
        else:
            raise RuntimeError(f"{' '.join(command)} did not start:\n{''.join(said)}")
        threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
        yield Server(found[1], process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _drain(output: IO[str]) -> None:
    for line in output:
        if re.search(r"ERROR|WARNING|Traceback|Error:|outbox is full", line):
            say(line.rstrip())


def engine(db: Path, *options: str, port: int = 0, checkout: Path = ROOT) -> Any:
    """Run `stephttp dev` on a real file (which it opens with `synchronous=FULL`)."""
    command = ["-m", "stephttp", "dev", "--port", str(port), "--db", str(db)]
    return served([*command, *options], r"engine ready on (http://\S+)", checkout=checkout)


def uvicorn(
    app: str,
    engine_url: str = "",
    env: Mapping[str, str] | None = None,
    *,
    checkout: Path = ROOT,
) -> Any:
    """Run an application under uvicorn, uvloop and httptools."""
    command = ["-m", "uvicorn", app, "--port", "0", "--no-access-log"]
    options = ["--loop", "uvloop", "--http", "httptools"]
    known = {"INNGEST_DEV": engine_url} if engine_url else {}
    env = {**known, **(env or {})}
    return served([*command, *options], r"running on (http://\S+)", env, checkout=checkout)


def served(
    options: Sequence[str],
    ready: str,
    env: Mapping[str, str] | None = None,
    *,
    checkout: Path = ROOT,
) -> Any:
    """Run a server of Python's as `started` does, in the environment of a checkout."""
    python = python_of(checkout)
    return started([str(python), *options], ready, env, cwd=checkout / "benchmarks")


@dataclass(frozen=True)
class Load:
    """The report of wrk on one round. Latencies are in milliseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float
    said: str


def load(
    url: str, *, connections: int = 16, seconds: int = SECONDS, script: str = "", args: str = ""
) -> Load:
    """Run one round of load. Every answer has to be a 2xx or 3xx.

    Args:
        script: a Lua file beside this one.
        args: for the script.
    """
    command = [wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    if script:
        command += ["-s", str(HERE / script)]
    done = subprocess.run(
        [*command, url, *args.split()], capture_output=True, text=True, check=True
    )
    text = done.stdout
    assert re.search("Non-2xx|Socket errors", text) is None, text
    counted = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text)
    assert counted is not None, text
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert rate is not None, text
    return Load(int(counted[1]), float(rate[1]), _ms(text, "50%"), _ms(text, "99%"), text)


def _ms(text: str, which: str) -> float:
    found = re.search(rf"{which}\s+([\d.]+)(us|ms|s)", text)
    assert found is not None, text
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def rows(db: Path, sql: str, *values: object) -> list[Any]:
    """Read rows from a database, for example the engine's."""
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


def count(db: Path, sql: str, *values: object) -> int:
    """Read a number from a database."""
    return int(rows(db, sql, *values)[0][0])


FINISHED = "SELECT count(*) FROM runs WHERE status = 'completed'"
ALL = "SELECT count(*) FROM runs"


def arrived(
    db: Path, expected: int, *, steps: int, in_flight: int = 16, deadline: float = DEADLINE
) -> float:
    """Check that every run arrived exactly once, whole; return the seconds that it took.

    wrk counts the requests that were answered before its time was over. Those that were under way
    then, `in_flight` at the most a round, may or may not have got to their end.

    Args:
        expected: runs whose callers got an answer.
        steps: that each of them has.
    """
    waited = wait_for(db, expected, deadline)
    found = count(db, ALL)
    assert found <= expected + in_flight, f"{found} runs of {expected} requests"
    assert found == count(db, FINISHED), "some runs have not ended"
    distinct = count(db, "SELECT count(DISTINCT run_id) FROM runs")
    assert distinct == found, "a run is there twice"
    stored = count(db, "SELECT count(*) FROM steps")
    assert stored == found * steps, f"{stored} steps of {found} runs, {steps} each"
    return waited


def wait_for(db: Path, expected: int, deadline: float = DEADLINE) -> float:
    """Wait until so many runs and those in progress have ended; return the seconds that it took."""
    began = time.monotonic()
    while (found := count(db, FINISHED)) < expected:
        late = time.monotonic() - began
        assert late < deadline, f"{expected - found} of {expected} runs are missing"
        time.sleep(0.05)
    waited = time.monotonic() - began
    time.sleep(0.2)
    return waited


def alternate(rounds: int, **sides: Callable[[], float]) -> dict[str, list[float]]:
    """Measure the sides in turn, so that a slow moment of the machine hits all of them."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            measured[name].append(side())
    return measured


def compared(
    question: str,
    measured: Mapping[str, Sequence[float]],
    ours: str,
    theirs: str,
    *,
    unit: str = "share",
    goal: str = "",
    note: str = "",
) -> Row:
    """Return a row that compares two sides: the ratio of the medians, and of each round."""
    figure = statistics.median(measured[ours]) / statistics.median(measured[theirs])
    rounds = [ours / theirs for ours, theirs in zip(measured[ours], measured[theirs], strict=True)]
    return Row(question, figure, unit, goal, (min(rounds), max(rounds)), note=note)
