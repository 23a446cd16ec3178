"""Processes that serve WSGI: what they still have is delivered at their exit, and after a fork."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import httpx2
import pytest

from tests.acceptance.processes import DEADLINE, STEPHTTP, Process

pytestmark = pytest.mark.usefixtures("measured")

PROGRAM = """
import os, sys
import stephttp
from stephttp.sync import step
from wsgiref.util import setup_testing_defaults

provider = stephttp.setup("http://127.0.0.1")


def app(environ, start_response):
    step.run("a", int)
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"ok"]


app = provider.wsgi(app)


def call():
    environ = {}
    setup_testing_defaults(environ)
    said = []
    chunks = app(environ, lambda status, headers: said.append(dict(headers)["x-run-id"]))
    assert list(chunks) == [b"ok"]
    chunks.close()
    # Two processes say this at once, into one pipe: in one write.
    os.write(1, f"run {said[0]}\\n".encode())
    return said[0]


call()
"""
FORKS = """
assert provider.outbox.depth == 1 or provider.wait_sync(60)
child = os.fork()
if not child:
    assert provider.outbox.depth == 0, "what the parent had is the parent's"
call()
if child:
    _, code = os.waitpid(child, 0)
    assert code == 0
"""

FORKS_FIRST = """
assert "httpx2" not in sys.modules, "nobody needs it yet"
if not os.fork():
    os._exit(0)
loaded = set(sys.modules)
call()
"""
LOADS = """
assert provider.wait_sync(60)
late = set(sys.modules) - loaded
assert not late, late
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with Process([*STEPHTTP, "dev", "--port", "0"]) as process:
        yield process.wait_for(r"(http://127\.0\.0\.1:\d+)")[1]
        process.signal(signal.SIGINT)
        process.wait()


@pytest.mark.parametrize(("program", "runs"), [(PROGRAM, 1), (PROGRAM + FORKS, 3)])
def test_a_process_delivers_what_it_has_before_it_exits(
    engine: str, program: str, runs: int
) -> None:
    with Process([sys.executable, "-c", program], env={"INNGEST_DEV": engine}) as process:
        assert process.wait() == 0, process.said()
    ids = [line.split()[1] for line in process.out if line.startswith("run ")]
    assert len(ids) == runs, process.said()
    for run_id in ids:
        answer = httpx2.get(f"{engine}/v1/runs/{run_id}", timeout=DEADLINE)
        assert answer.json()["data"]["status"] == "Completed", answer.text


def test_delivering_imports_nothing_that_a_fork_could_cut_in_half(engine: str) -> None:
    program = PROGRAM.replace("\ncall()\n", FORKS_FIRST) + LOADS
    with Process([sys.executable, "-c", program], env={"INNGEST_DEV": engine}) as process:
        assert process.wait() == 0, process.said()


def test_what_could_not_be_delivered_is_said() -> None:
    at_once = PROGRAM + "from functools import partial; provider.close = partial(provider.close, 0)"
    nobody = {"INNGEST_DEV": "http://127.0.0.1:9"}
    with Process([sys.executable, "-c", at_once], env=nobody) as process:
        assert process.wait() == 0, process.said()
    assert "1 finished runs were not delivered before the exit" in process.said()
    assert "Traceback" not in process.said()
