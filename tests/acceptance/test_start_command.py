"""`stephttp start` as an operator meets it: real processes, keys on both sides, signals, disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.commands import run
from tests.acceptance.processes import STEPHTTP, Process, eventually, free_port

pytestmark = pytest.mark.usefixtures("measured")

OLD, NEW, WRONG = "signkey-prod-" + "0a" * 32, "signkey-prod-" + "1b" * 32, "2c" * 32
EVENT_KEY = "event-key-of-the-tests"

# Counts each execution of a step in a file; "hold" lasts for as long as the file "held" exists.
APP = """
import asyncio, pathlib
from datetime import timedelta
from fastapi import FastAPI
import stephttp
from stephttp import step

HERE = pathlib.Path(__file__).parent
app = FastAPI()
app.add_middleware(
    stephttp.ASGIMiddleware, provider=stephttp.setup((HERE / "origin").read_text())
)


def note(name: str) -> str:
    with open(HERE / "log", "a") as log:
        log.write(name + "\\n")
    return name


async def hold() -> str:
    note("hold")
    while (HERE / "held").exists():
        print("holding", flush=True)
        await asyncio.sleep(0.05)
    return "held"


@app.post("/nap", status_code=201)
async def nap(body: dict[str, float]) -> list[str]:
    first = await step.run("first", note, "first")
    await step.sleep("nap", timedelta(seconds=body["seconds"]))
    held = await step.run("hold", hold)
    return [first, held, await step.run("second", note, "second")]
"""


class World:
    """An engine on a file and an application, each on a port of its own for all its lives."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.db = directory / "runs.db"
        self.engine_port, self.app_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.engine_port}"
        (directory / "napper.py").write_text(APP)
        (directory / "origin").write_text(f"http://127.0.0.1:{self.app_port}")
        (directory / "log").touch()

    def command(self, *options: str) -> tuple[str, ...]:
        return (
            *STEPHTTP, "start", "--port", str(self.engine_port), "--db", str(self.db),
            "--event-key", EVENT_KEY, "--allow-host", f"127.0.0.1:{self.app_port}", *options,
        )  # fmt: skip

    def engine(self, *keys: str, options: tuple[str, ...] = ()) -> Process:
        given = [word for key in keys for word in ("--signing-key", key)]
        process = Process(self.command(*given, *options))
        process.wait_for("engine.start")
        return process

    def app(self, key: str, fallback: str = "") -> Process:
        process = Process(
            [*STEPHTTP[:-1], "uvicorn", "napper:app", "--port", str(self.app_port)],
            cwd=self.directory,
            env={
                "INNGEST_BASE_URL": self.url,
                "INNGEST_SIGNING_KEY": key,
                "INNGEST_SIGNING_KEY_FALLBACK": fallback,
            },
        )
        process.wait_for("Uvicorn running")
        return process

    def post(self, seconds: float) -> httpx2.Response:
        url = f"http://127.0.0.1:{self.app_port}/nap"
        return httpx2.post(url, json={"seconds": seconds}, timeout=60)

    def runs(self, key: str) -> list[dict[str, Any]]:
        answer = httpx2.get(f"{self.url}/v1/runs", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200, answer.text
        data: list[dict[str, Any]] = answer.json()["data"]
        return data

    def executions(self) -> list[str]:
        return (self.directory / "log").read_text().split()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ends_well(answer: httpx2.Response) -> None:
    assert answer.status_code == 303, answer.text
    result = httpx2.get(answer.headers["location"], timeout=60)
    assert (result.status_code, result.json()) == (201, ["first", "held", "second"])


def events(engine: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in engine.out]


def stop(engine: Process) -> None:
    engine.signal(signal.SIGTERM)
    assert engine.wait() == 0, engine.said()


ONCE = ["first", "hold", "second"]


@pytest.mark.parametrize(
    ("engine_keys", "app_keys"),
    [
        pytest.param((OLD,), (OLD, ""), id="same key"),
        pytest.param((OLD,), (NEW, OLD), id="the app is ahead"),
        pytest.param((NEW, OLD), (OLD, NEW), id="the engine is ahead"),
        pytest.param((OLD, NEW), (NEW, OLD), id="both have both"),
    ],
)
def test_a_key_on_both_sides(
    world: World, engine_keys: tuple[str, ...], app_keys: tuple[str, str]
) -> None:
    with world.engine(*engine_keys) as engine, world.app(*app_keys):
        answer = world.post(0.2)
        ends_well(answer)
        run_id = answer.headers["x-run-id"]
        (run,) = world.runs(engine_keys[-1])
        assert (run["run_id"], run["status"]) == (run_id, "Completed")
        health = httpx2.get(f"{world.url}/health")
        assert health.headers["x-inngest-server-kind"] == "cloud"
        stop(engine)
        told = [(event["event"], event.get("run_id")) for event in events(engine)]
        assert told[0] == ("engine.start", None)
        # With the app ahead, its first call has the key that this engine does not know yet.
        own = [pair for pair in told[1:-2] if pair[0] != "request.refused"]
        assert own == [("run.start", run_id), ("reentry", run_id), ("run.end", run_id)]
        assert [name for name, _ in told[-2:]] == ["engine.drain", "engine.stop"]
        for secret in (OLD, NEW, EVENT_KEY, "token=", "eyJ"):
            assert secret not in engine.said()
    assert world.executions() == ONCE


def test_a_wrong_key_of_the_app(world: World) -> None:
    with world.engine(OLD) as engine, world.app(WRONG) as app:
        answer = world.post(0.1)
        assert answer.status_code == 500
        assert "cannot continue in the background" in answer.text
        app.wait_for("the server answered 401: Authentication failed")
        engine.wait_for('"request.refused".*"status": 401.*"no or wrong signing key"')
        assert world.runs(OLD) == []
        stop(engine)
        assert not any(event["event"] == "reentry" for event in events(engine))
    # The step before the sleep ran in the caller's own request; nothing ran after it.
    assert world.executions() == ["first"]


def test_a_wrong_key_of_the_engine(world: World) -> None:
    """The app gets a call that is signed with a key that it does not know."""
    with world.app(OLD):
        with world.engine(OLD) as engine:
            answer = world.post(2)
            assert answer.status_code == 303
            stop(engine)
        with world.engine(NEW) as engine:
            engine.wait_for('"reentry".*"status": 401.*"transient".*"SignatureError"')
            # The call is logged before its outcome is stored.
            (run,) = eventually(lambda: [run for run in world.runs(NEW) if run["last_error"]])
            assert (run["status"], run["attempt"]) == ("Running", 0)
            assert (
                "SignatureError: the endpoint answered 401, it refused the signature"
                in run["last_error"]
            )
            assert "x-stephttp-signature: wrong or too old" in run["last_error"]
        assert world.executions() == ["first"]
        # The run waits until somebody has put it right.
        with world.engine(OLD, NEW):
            ends_well(answer)
    assert world.executions() == ONCE


def test_keys_are_rotated_while_a_run_sleeps(world: World) -> None:
    with world.engine(OLD) as engine, world.app(OLD):
        answer = world.post(4)
        stop(engine)
    with world.app(NEW, OLD), world.engine(NEW, OLD):
        ends_well(answer)
    assert world.executions() == ONCE


def test_a_run_that_takes_too_long_fails_and_its_caller_is_told(world: World) -> None:
    options = ("--run-deadline", "1s", "--call-timeout", "5s", "--retry-delay", "10ms")
    with world.app(OLD), world.engine(OLD, options=options):
        answer = world.post(3600)
        assert answer.status_code == 303
        result = httpx2.get(answer.headers["location"], timeout=60)
        assert result.status_code == 500
        assert result.json()["error"] == {
            "name": "DeadlineError",
            "message": "the run did not end within 1 s",
        }
    assert world.executions() == ["first"]


def test_sigterm_lets_calls_end_and_callers_get_their_answers(world: World) -> None:
    (world.directory / "held").touch()
    with world.app(OLD) as app:
        with world.engine(OLD) as engine:
            answer = world.post(0.1)
            app.wait_for("holding")
            readers: list[httpx2.Response] = []
            reader = threading.Thread(
                target=lambda: readers.append(httpx2.get(answer.headers["location"], timeout=60))
            )
            reader.start()
            engine.signal(signal.SIGTERM)
            engine.wait_for('"engine.drain".*"calls": 1')
            # The call that is under way reports to an engine that still listens.
            assert httpx2.get(f"{world.url}/health").status_code == 200
            assert readers == []
            (world.directory / "held").unlink()
            assert engine.wait() == 0, engine.said()
            reader.join()
            assert readers[0].headers["x-stephttp-result"] == "final"
            names = [event["event"] for event in events(engine)]
            assert "engine.drain_incomplete" not in names
            assert names[-1] == "engine.stop"
            assert "run.end" in names
        with world.engine(OLD):
            ends_well(answer)
    assert world.executions() == ONCE


@pytest.mark.parametrize("hurry", [True, False])
def test_the_grace_period_ends(world: World, hurry: bool) -> None:
    (world.directory / "held").touch()
    grace = ("--grace", "1h" if hurry else "100ms")
    with world.app(OLD) as app:
        with world.engine(OLD, options=grace) as engine:
            answer = world.post(0.1)
            app.wait_for("holding")
            engine.signal(signal.SIGTERM)
            engine.wait_for("engine.drain")
            if hurry:
                engine.signal(signal.SIGTERM)
            assert engine.wait() == 0, engine.said()
            assert "engine.drain_incomplete" in [event["event"] for event in events(engine)]
        (world.directory / "held").unlink()
        with world.engine(OLD):
            ends_well(answer)


def test_a_second_engine_on_the_same_file_is_refused(world: World) -> None:
    with world.engine(OLD) as engine:
        other = [*world.command("--signing-key", OLD), "--port", "0"]
        for command in (other, [*STEPHTTP, "dev", "--port", "0", "--db", str(world.db)]):
            with Process(command) as second:
                assert second.wait() == 1
                assert f"another engine (process {engine.process.pid}) works with" in second.err[0]
        engine.signal(signal.SIGSTOP)  # it only looks dead
        with Process(other) as second:
            assert second.wait() == 1
            assert "another engine" in second.err[0]
        engine.signal(signal.SIGCONT)
        engine.signal(signal.SIGKILL)
        engine.wait()
    with world.engine(OLD):
        pass


def test_an_app_on_a_private_address_is_refused(world: World) -> None:
    command = list(world.command("--signing-key", OLD))
    at = command.index("--allow-host")
    with Process([*command[:at], *command[at + 2 :]]) as engine, world.app(OLD) as app:
        engine.wait_for("engine.start")
        answer = world.post(0.1)
        assert answer.status_code == 500
        app.wait_for("event.data.domain: 127.0.0.1:.* is not public")
        engine.wait_for('"request.refused".*"status": 403')
        assert world.runs(OLD) == []


@pytest.mark.parametrize(
    ("environment", "options", "complaint"),
    [
        ({}, (), "no signing key: set INNGEST_SIGNING_KEY"),
        ({"INNGEST_SIGNING_KEY": OLD}, (), "no event key: set INNGEST_EVENT_KEY"),
        ({"INNGEST_SIGNING_KEY": "xyz" * 20}, ("--event-key", EVENT_KEY), "hexadecimal"),
        ({"INNGEST_SIGNING_KEY": "abcd"}, (), "signing key 1 is too short"),
        ({"INNGEST_SIGNING_KEY": OLD, "INNGEST_EVENT_KEY": "a/b"}, (), "event key 1 must consist"),
        ({}, ("--signing-key-file", "/nowhere/keys"), "cannot read the key file '/nowhere/keys'"),
        ({}, ("--signing-key", OLD, "--event-key", EVENT_KEY, "--retain", "7"), "--retain: '7'"),
        ({}, ("--signing-key", OLD, "--event-key", EVENT_KEY, "--grace", "x"), "--grace: 'x'"),
        ({}, ("--signing-key", OLD, "--event-key", EVENT_KEY, "--run-deadline", "1"),
         "--run-deadline: '1'"),
        ({}, ("--signing-key", OLD, "--event-key", EVENT_KEY, "--run-deadline", "0s"),
         "run_deadline must be a positive"),
        ({}, ("--signing-key", OLD, "--event-key", EVENT_KEY, "--call-timeout", "0s"),
         "call_timeout must be a positive"),
        ({}, ("--signing-key", OLD, "--event-key", EVENT_KEY, "--allow-host", "http://x"),
         "allow-host: 'http://x'"),
        ({}, ("--signing-key", OLD, "--event-key", EVENT_KEY, "--db", ":memory:"), "--db: a file"),
    ],
)  # fmt: skip
def test_it_does_not_start_with_a_wrong_configuration(
    tmp_path: Path, environment: dict[str, str], options: tuple[str, ...], complaint: str
) -> None:
    ended = run("start", "--port", "0", "--db", str(tmp_path / "db"), *options, env=environment)
    assert ended.code == 2
    assert ended.out == []
    assert len(ended.err) == 1
    assert complaint in ended.err[0]
    assert os.listdir(tmp_path) == []


def test_keys_from_the_environment_and_a_log_in_text(tmp_path: Path) -> None:
    variables = {
        "INNGEST_SIGNING_KEY": NEW,
        "INNGEST_SIGNING_KEY_FALLBACK": OLD,
        "INNGEST_EVENT_KEY": EVENT_KEY,
        "STEPHTTP_DB": str(tmp_path / "db"),
    }
    with Process([*STEPHTTP, "start", "--port", "0", "--log-format", "text"], env=variables) as e:
        line = e.wait_for(r'INFO engine\.start engine ready url="(\S+)"')
        assert "signing_keys=2 event_keys=1" in line.string
        for key, status in ((NEW, 200), (OLD, 200), (WRONG, 401)):
            headers = {"authorization": f"Bearer {key}"}
            assert httpx2.get(f"{line[1]}/v1/runs", headers=headers).status_code == status
        for key, status in ((EVENT_KEY, 200), ("another-key", 401)):
            sent = httpx2.post(f"{line[1]}/e/{key}", json={"name": "a"})
            assert sent.status_code == status, sent.text
        stop(e)
        assert EVENT_KEY not in e.said()
        assert "another-key" not in e.said()


def test_backup_and_check_of_a_live_database(world: World) -> None:
    copy = world.directory / "copy"
    with world.engine(OLD), world.app(OLD):
        ends_well(world.post(0.1))
        assert world.post(3600).status_code == 303
        with Process([*STEPHTTP, "backup", str(copy), "--db", str(world.db)]) as backup:
            assert backup.wait() == 0, backup.said()
            assert backup.out[0].endswith("bytes, checked)")
        for file in (world.db, copy):
            with Process([*STEPHTTP, "check-db", str(file)]) as check:
                assert check.wait() == 0, check.said()
                assert check.out[0].endswith("runs: 1 async, 1 completed)")
    with Process([*STEPHTTP, "check-db", str(world.directory / "napper.py")]) as check:
        assert check.wait() == 1
        assert "integrity: file is not a database" in check.err[0]
    with Process([*STEPHTTP, "backup", str(world.db), "--db", str(world.db)]) as backup:
        assert backup.wait() == 2
        assert "replace the database itself" in backup.err[0]


@contextmanager
def mounted(folder: Path, *arguments: str) -> Generator[None]:
    """A mount, if this machine lets us make one."""
    folder.mkdir()
    command = ["mount", *arguments, str(folder)]
    if (
        not shutil.which("mount")
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip(f"not permitted here: {' '.join(command)}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write until no block is left."""
    with file.open("wb", buffering=0) as ballast:
        left = os.statvfs(file).f_bavail
        for _ in range(left):
            ballast.write(b"x" * os.statvfs(file).f_frsize)
    assert os.statvfs(file).f_bavail == 0


def test_a_disk_that_is_really_full(world: World) -> None:
    """Refused with the reason; nothing acknowledged is lost; good again when there is space."""
    disk = world.directory / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        world.db = disk / "runs.db"
        with world.engine(OLD) as engine, world.app(OLD):
            acknowledged = [world.post(3).headers["x-run-id"]]
            ballast = disk / "ballast"
            fill(ballast)
            refused = None
            for _ in range(400):
                answer = world.post(3)
                if answer.status_code != 303:
                    refused = answer
                    break
                acknowledged.append(answer.headers["x-run-id"])
            assert refused is not None
            assert refused.status_code == 503
            engine.wait_for('"request.refused".*"status": 503.*(disk is full|disk I/O error)')
            # Reads go on.
            known = {run["run_id"] for run in world.runs(OLD)}
            assert known >= set(acknowledged[-5:])
            engine.wait_for('"storage.failed"')
            ballast.unlink()
            deadline = set(acknowledged)
            headers = {"authorization": f"Bearer {OLD}"}
            for run_id in deadline:
                while True:
                    run = httpx2.get(f"{world.url}/v1/runs/{run_id}", headers=headers).json()
                    assert run["data"]["status"] in ("Running", "Completed"), run
                    if run["data"]["status"] == "Completed":
                        break
            ends_well(world.post(0.1))
            stop(engine)
        with Process([*STEPHTTP, "check-db", str(world.db)]) as check:
            assert check.wait() == 0, check.said()


def test_a_disk_that_is_read_only(world: World) -> None:
    disk = world.directory / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        world.db = disk / "runs.db"
        with world.engine(OLD) as engine:
            stop(engine)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Process(world.command("--signing-key", OLD)) as engine:
            assert engine.wait() == 1
            assert "cannot open the database" in engine.err[0]
            assert "Read-only file system" in engine.err[0]
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with world.engine(OLD):
            pass


def test_dev_that_others_can_reach_warns() -> None:
    with Process([*STEPHTTP, "dev", "--port", "0", "--host", "0.0.0.0"]) as dev:
        dev.wait_for("engine ready")
        dev.wait_for("WARNING")  # The two streams are read by two threads.
        assert dev.err[0].startswith("stephttp: WARNING: anyone who can reach 0.0.0.0 can")
