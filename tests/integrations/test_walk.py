"""How many files of the SDK a request walks through; `python -m benchmarks.walk` names them."""

import subprocess
import sys

import pytest

from tests.acceptance.processes import ROOT

PROGRAM = "import sys; from benchmarks import walk; print(*sorted(walk.sdk(sys.argv[1])))"


@pytest.mark.parametrize(("path", "most"), [("/steps", 18), ("/sleep", 31)])
def test_a_request_walks_through_few_files(path: str, most: int) -> None:
    """In a process of its own: here, other tests have loaded libraries that are watched."""
    command = [sys.executable, "-c", PROGRAM, path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    walked = done.stdout.split()
    assert walked, done.stderr
    assert len(walked) <= most, walked
