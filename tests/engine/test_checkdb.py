"""`check-db`: a whole database passes, and every broken rule is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from stephttp.engine.store import database
from stephttp.engine.store.check import check_file
from stephttp.engine.store.sql import CHECKS, MIGRATIONS
from stephttp.errors import ConfigurationError

from .support import DONE, OTHER, RUN, A, B, Z, answer, sleep, step, step_error, world

BREAKS = {
    "an async run has at least one timer that is not of the run as a whole": (
        "UPDATE timers SET kind = 'cancel'"
    ),
    "an idempotency key belongs to a run": (
        "INSERT INTO idempotency VALUES (x'00', x'00', 'nobody', 1)"
    ),
    "only async runs have timers, but for the lease of a sync one": "INSERT INTO timers "
    "(run_id, step_id, kind, due_ms, job_id, attempt, unreached) "
    "VALUES ('nobody', '', 'resume', 1, '', 0, 0)",
    "a step belongs to a run": "UPDATE steps SET run_id = 'nobody' "
    f"WHERE run_id = '{OTHER}' AND step_id = '{A}'",
    "a timer of a step belongs to a step that is not over (over, if it is a wake)": ""
    "UPDATE steps SET memo = x'6e756c6c' "
    f"WHERE step_id = '{Z}'",
    "a run has an end exactly if it has ended": f"UPDATE runs SET ended_ms = 1 "
    f"WHERE run_id = '{RUN}'",
    "a run has the length of its first phase exactly if that is over": (
        "UPDATE runs SET first_ns = NULL"
    ),
    "a run that is async has the time when it became so": "UPDATE runs SET async_ms = NULL",
    "history belongs to a run": "INSERT INTO history VALUES "
    "('nobody', 'call', '', '', 0, 1, 1, 1, NULL)",
    "warnings belong to a run": "INSERT INTO warnings VALUES ('nobody', 'kind', '', 1, 'text')",
    "links belong to a run": "INSERT INTO links VALUES ('nobody', 'event', 'step', 1)",
    "a span belongs to a run, and its details are JSON": "INSERT INTO spans VALUES "
    "('nobody', x'01', x'02', NULL, '', NULL, 'n', 'internal', 'ok', 1, 2, x'7b7d')",
    "a step of an async run that waits has a timer": "DELETE FROM timers WHERE kind = 'sleep'",
    "a run counts its steps": "UPDATE runs SET step_count = 7",
    "memos and errors of steps are JSON": f"UPDATE steps SET memo = x'7b' WHERE step_id = '{A}'",
    "errors and heads of runs are JSON": "UPDATE runs SET head = x'ff'",
    "a run of another status than failed has no error": "UPDATE runs SET error = x'7b7d'",
    "a delivery is one of a stored event": "INSERT INTO deliveries VALUES (7, 'go')",
    "what an event ends knows which events were there before": ""
    f"UPDATE timers SET kind = 'event', key = 'go' WHERE step_id = '{Z}'",
    "an event in the backlog is stored": "INSERT INTO backlog VALUES (7, 'go')",
    "a part belongs to a stream that is not gone, and is not beyond its end": (
        "INSERT INTO stream_parts VALUES ('nobody', 1, x'5b5d')"
    ),
    "a function has an endpoint, and an app if it is present": (
        "INSERT INTO functions "
        "VALUES ('f', 'nobody', 'n', '', 1, 0, NULL, x'5b5d', x'7b7d', x'7b7d')"
    ),
    "events that started a function belong to a run, and are an array": (
        "INSERT INTO function_runs VALUES ('nobody', x'5b5d')"
    ),
    "a singleton is a run": "INSERT INTO singletons VALUES ('s', 'nobody')",
    "a run that is awaited by several is known, and is awaited by another one": (
        f"INSERT INTO invokers VALUES ('{RUN}', '{OTHER}.{A}')"
    ),
    "a held start has events, all of a batch and the latest of a debounce": (
        "INSERT INTO held_starts VALUES (1, 'n', 'batch', 'f', '', 2, 10, 1, 2)"
    ),
    "held events and invokers belong to a held start": (
        f"INSERT INTO held_invokers VALUES (1, '{OTHER}.{A}')"
    ),
    "a run that has to pass gates, or has a turn, is open": (
        f"INSERT INTO turns VALUES ('{OTHER}', 1)"
    ),
    "a run that has to pass gates has a turn, and the gates are there": (
        f"INSERT INTO run_gates VALUES ('{RUN}', '~nothing', 0)"
    ),
    "a run takes a place with its first call only in its first phase": (
        f"INSERT INTO run_gates VALUES ('{RUN}', '~nothing', 1)"
    ),
    "a gate has runs, or says when the next one may start": (
        "INSERT INTO gates VALUES ('~unused', 'f', 0, 1, 1, NULL, 0, 0, '')"
    ),
    "a timer that is set aside has its place there, and one at a gate has to pass it": (
        "UPDATE timers SET aside = '~nothing', turn_ms = 1"
    ),
    "a schedule is of a function that is present and can be started": (
        "INSERT INTO schedules VALUES ('f', 0, '@daily', 0, 1, 1, 1)"
    ),
    "metadata belongs to a run, and is an object": (
        "INSERT INTO run_metadata VALUES ('nobody', '', -1, '', 'userland.x', 1, x'7b7d')"
    ),
    "there is a secret of 32 bytes": "UPDATE meta SET value = x'00' WHERE key = 'secret'",
}


async def make(path: Path) -> None:
    """A database with a run that sleeps and retries a step, and one that has ended."""
    async with world(path=path, script=[answer([DONE])]) as w:
        await w.post(step(), sleep(), step_error(B), retries=3)
        await w.post(step(), sleep(text="500ms"), run_id=OTHER)
        await w.after(0.5)


async def test_a_whole_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await make(path)
    report = check_file(str(path))
    assert report.problems == ()
    assert report.version == database.newest_version()
    assert sum(report.runs.values()) == 2


def test_every_rule_is_tested() -> None:
    assert set(BREAKS) == set(CHECKS)


@pytest.mark.parametrize("rule", BREAKS)
async def test_what_breaks_a_rule_is_found(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "db"
    await make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(BREAKS[rule])
        connection.commit()
    problems = check_file(str(path)).problems
    assert any(problem.startswith(f"{rule}: ") for problem in problems), problems


async def test_a_damaged_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await make(path)
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'runs_by_end'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    problems = check_file(str(path)).problems
    assert problems
    assert problems[0].startswith("integrity: ")


async def test_it_reads_what_an_engine_works_with(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path) as w:
        await w.post(sleep())
        assert check_file(str(path)).runs == {"async": 1}


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "none", None), (tmp_path / "empty", b"")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError):
            check_file(str(path))
    newer = tmp_path / "newer"
    database.open_for_writing(str(newer), [*MIGRATIONS, "CREATE TABLE t (x);"]).close()
    with pytest.raises(ConfigurationError, match="newer version"):
        check_file(str(newer))
    text = tmp_path / "text"
    text.write_text("dear diary, " * 1000)
    assert check_file(str(text)).problems == ("integrity: file is not a database",)
