"""`stephttp dev` as a user meets it: a real process, real signals, a real app beside it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.commands import run
from tests.acceptance.processes import STEPHTTP, Lifeline, Process

pytestmark = pytest.mark.usefixtures("measured")

DEV = (*STEPHTTP, "dev")
READY = r"engine ready on (http://127\.0\.0\.1:(\d+)) "

# An app that takes hold of the lifeline, as does a child of its own, says so, and waits.
APP = """
import os, signal, sys
lifeline = open(sys.argv[1], "w")
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    signal.pause()
print("engine is", os.environ.get("INNGEST_DEV"), os.environ.get("INNGEST_BASE_URL"))
print("to stderr", file=sys.stderr)
signal.pause()
"""


@pytest.fixture
def lifeline(tmp_path: Path) -> Lifeline:
    return Lifeline(tmp_path)


def app_command(lifeline: Lifeline, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", APP, str(lifeline.path), *words)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_engine_alone() -> None:
    with Process([*DEV, "--port", "0"]) as dev:
        ready = dev.wait_for(READY)
        assert httpx2.get(f"{ready[1]}/health").status_code == 200
        dev.signal(signal.SIGINT)
        assert dev.wait() == 0, dev.said()
        assert dev.out[-1] == "stephttp: stopping"
        assert dev.err == []


def test_names_under_which_it_may_be_asked() -> None:
    with Process([*DEV, "--port", "0", "--trust-host", "engine"]) as dev:
        url = dev.wait_for(READY)[1]
        answers = {
            host: httpx2.get(f"{url}/v1/runs", headers={"host": host})
            for host in ("engine:8288", "localhost", "evil.example")
        }
        assert [answer.status_code for answer in answers.values()] == [200, 200, 403]
        assert "--trust-host" in answers["evil.example"].json()["error"]


def test_waits_that_look_back() -> None:
    run_id = "01M81KWY2JTNRXZTV817ZB746V"
    wait = {"op": "WaitForEvent", "id": "w", "name": "go", "opts": {"timeout": "1h"}}
    data = {"domain": "http://127.0.0.1:9", "method": "GET", "path": "/"}
    body = {"run_id": run_id, "event": {"data": data}, "steps": [wait]}
    with Process([*DEV, "--port", "0", "--event-lookback", "3600"]) as dev:
        url = dev.wait_for(READY)[1]
        assert httpx2.post(f"{url}/e/any", json={"name": "go"}).status_code == 200
        assert httpx2.post(f"{url}/v1/checkpoint", json=body).status_code == 200
        memos = httpx2.get(f"{url}/v0/runs/{run_id}/actions").json()
        assert memos["w"]["name"] == "go"
        dev.signal(signal.SIGINT)
        assert dev.wait() == 0, dev.said()


def test_app_gets_the_engine_and_a_prefix(lifeline: Lifeline) -> None:
    environment = {"INNGEST_BASE_URL": "https://elsewhere.example.com"}
    with Process([*DEV, "--port", "0", "--", *app_command(lifeline)], env=environment) as dev:
        url = dev.wait_for(READY)[1]
        dev.wait_for(f"^app \\| engine is {url} None$")
        dev.wait_for("^app \\| to stderr$")
        dev.signal(signal.SIGINT)
        assert dev.wait() == 0, dev.said()
        assert dev.err == ["app | to stderr"]
        lifeline.wait_until_released()


def test_sigterm_stops_both(lifeline: Lifeline) -> None:
    with Process([*DEV, "--port", "0", *app_command(lifeline)]) as dev:
        dev.wait_for("engine is")
        dev.signal(signal.SIGTERM)
        assert dev.wait() == 0, dev.said()
        lifeline.wait_until_released()


def test_second_ctrl_c_does_not_wait_for_a_stubborn_app(lifeline: Lifeline) -> None:
    with Process([*DEV, "--port", "0", "--", *app_command(lifeline, "stubborn")]) as dev:
        dev.wait_for("engine is")
        dev.signal(signal.SIGINT)
        dev.wait_for("stopping")
        dev.signal(signal.SIGINT)
        assert dev.wait() == 0, dev.said()
        lifeline.wait_until_released()


def test_app_does_not_outlive_a_killed_dev(lifeline: Lifeline) -> None:
    with Process([*DEV, "--port", "0", "--", *app_command(lifeline)]) as dev:
        dev.wait_for("engine is")
        dev.signal(signal.SIGKILL)
        lifeline.wait_until_released()


def test_ends_when_nobody_reads_what_it_says(lifeline: Lifeline, tmp_path: Path) -> None:
    chatty = APP.replace("signal.pause()\n", "while True: print('chat')\n")
    command = (sys.executable, "-c", chatty, str(lifeline.path))
    shell = 'set -o pipefail; "$@" | head -n 3'
    with Process(["bash", "-c", shell, "bash", *DEV, "--port", "0", "--", *command]) as dev:
        assert dev.wait() == 0, dev.said()
        lifeline.wait_until_released()
        assert set(dev.err) <= {"app | to stderr"}


def test_ends_when_its_reader_is_gone_though_nothing_is_said(lifeline: Lifeline) -> None:
    # The shell reads until the app is up, and goes.
    shell = """"$@" | while read line; do case $line in *'engine is'*) break;; esac; done"""
    command = ["bash", "-c", f"set -o pipefail; {shell}", "bash", *DEV, "--port", "0", "--"]
    with Process([*command, *app_command(lifeline)]) as dev:
        assert dev.wait() == 0, dev.said()
        lifeline.wait_until_released()


@pytest.mark.parametrize(
    ("code", "expected"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137), ("", 0)],
)
def test_exit_code_is_the_apps(code: str, expected: int) -> None:
    with Process([*DEV, "--port", "0", "--", *python(code)]) as dev:
        assert dev.wait() == expected, dev.said()
        assert f"stephttp: the app ended with exit code {expected}; stopping the engine" in dev.err


def test_what_an_ended_app_has_left_behind_is_stopped(lifeline: Lifeline) -> None:
    leaves = APP.replace("signal.pause()\n", "pass\n", 1).replace(
        "if os.fork() == 0:\n    pass", "if os.fork() == 0:\n    signal.pause()"
    )
    quits = leaves.rstrip().removesuffix("signal.pause()") + "sys.exit(3)"
    command = (sys.executable, "-c", quits, str(lifeline.path))
    with Process([*DEV, "--port", "0", "--", *command]) as dev:
        assert dev.wait() == 3, dev.said()
        lifeline.wait_until_released()


def test_last_words_without_a_newline_are_passed_on() -> None:
    with Process([*DEV, "--port", "0", "--", *python("print('one\\ntwo', end='')")]) as dev:
        assert dev.wait() == 0, dev.said()
        assert dev.out[1:] == ["app | one", "app | two"]


def test_options_of_the_app_are_not_ours() -> None:
    # Without the `--`, too.
    app = python("import sys; print(sys.argv[1:])")
    with Process([*DEV, "--port", "0", *app, "--port", "1", "--help"]) as dev:
        assert dev.wait() == 0, dev.said()
        assert "app | ['--port', '1', '--help']" in dev.out


def test_default_port_taken_takes_the_next_free_one() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        # Not the real default: other test runs on this machine want it as well.
        moved = f"import stephttp.cli.ports as ports, stephttp.cli; ports.DEFAULT_PORT = {port};"
        with Process([*python(f"{moved} stephttp.cli.main()"), "dev"]) as dev:
            ready = dev.wait_for(READY)
            assert int(ready[2]) > port
            assert dev.out[0] == f"stephttp: port {port} is taken, using the next free one"
            assert httpx2.get(f"{ready[1]}/health").status_code == 200
            dev.signal(signal.SIGINT)
            assert dev.wait() == 0, dev.said()


def test_given_port_taken_is_an_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with Process([*DEV, "--port", str(port), "--", *python("print('started')")]) as dev:
            assert dev.wait() == 1
            assert dev.out == []
            (complaint,) = dev.err
            assert complaint.startswith(f"stephttp: port {port} on 127.0.0.1 is taken; ")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_host_that_is_not_ours(host: str) -> None:
    with Process([*DEV, "--host", host, "--port", "0"]) as dev:
        assert dev.wait() == 1
        assert len(dev.err) == 1
        assert dev.err[0].startswith("stephttp: cannot listen on ")
        assert host in dev.err[0]


def test_command_that_does_not_exist() -> None:
    with Process([*DEV, "--port", "0", "--", "no-such-command"]) as dev:
        assert dev.wait() == 127
        assert dev.err == ["stephttp: cannot start the app: no command 'no-such-command'"]


def test_command_that_is_not_executable(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("not a program")
    with Process([*DEV, "--port", "0", "--", str(script)]) as dev:
        assert dev.wait() == 126
        assert dev.err == [f"stephttp: cannot start the app: {script}: Permission denied"]


@pytest.mark.parametrize(
    "arguments", [("--port", "x"), ("--port", "65536"), ("--port", "-1"), ("--no-such-option",)]
)
def test_bad_arguments(arguments: tuple[str, ...]) -> None:
    dev = run("dev", *arguments)
    assert dev.code == 2
    assert "Usage" in "\n".join(dev.err)
    assert arguments[0] in "\n".join(dev.err)


def test_db_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "runs.sqlite3"
    with Process([*DEV, "--port", "0", "--db", str(path), "--", *python("print(1)")]) as dev:
        assert dev.wait() == 1
        assert dev.out == []
        assert len(dev.err) == 1, dev.said()
        assert str(path) in dev.err[0]


def test_db_keeps_the_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    run_id = "01M81KWY2JTNRXZTV817ZB746V"
    request = {"domain": "http://127.0.0.1:9", "method": "GET", "path": "/", "fn": "f"}
    event = {"name": "inngest/http.request", "data": request}
    with Process([*DEV, "--port", "0", "--db", str(path)]) as dev:
        url = dev.wait_for(READY)[1]
        assert dev.out == [f"stephttp: engine ready on {url} (runs are kept in {path})"]
        answer = httpx2.post(f"{url}/v1/checkpoint", json={"run_id": run_id, "event": event})
        assert answer.status_code == 200, answer.text
        dev.signal(signal.SIGINT)
        assert dev.wait() == 0, dev.said()
    with Process([*DEV, "--port", "0", "--db", str(path)]) as dev:
        url = dev.wait_for(READY)[1]
        runs = httpx2.get(f"{url}/v1/runs").json()["data"]
        assert [run["run_id"] for run in runs] == [run_id]


def test_version_and_help() -> None:
    version = run("--version")
    assert version.code == 0
    assert version.out[0].startswith("stephttp 0.")
    usage = run("dev", "--help")
    assert usage.code == 0
    assert "COMMAND" in "\n".join(usage.out)


def test_without_the_engine_extra_it_says_what_to_install() -> None:
    blocked = "import sys; sys.modules['typer'] = None; import stephttp.cli; stephttp.cli.main()"
    with Process(python(blocked)) as command:
        assert command.wait() == 1
        assert command.err[-1] == "Install it with: pip install 'stephttp[engine]'"


def test_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("stephttp")
    assert os.access(script, os.X_OK)
    with Process([str(script), "--version"]) as command:
        assert command.wait() == 0
