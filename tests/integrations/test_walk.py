"""How many files a request walks through; `python -m benchmarks.walk` names them."""

import subprocess
import sys

import pytest

from tests.acceptance.processes import ROOT

PROGRAM = "from benchmarks import walk; print(*sorted(walk.%s(%r)))"


@pytest.mark.parametrize(
    ("side", "path", "most"),
    [("sdk", "/steps", 18), ("sdk", "/sleep", 30), ("engine", "/sleep", 28)],
)
def test_a_request_walks_through_few_files(side: str, path: str, most: int) -> None:
    """In a process of its own: here, other tests have loaded libraries that are watched."""
    command = [sys.executable, "-c", PROGRAM % (side, path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    walked = done.stdout.split()
    assert walked, done.stderr
    assert len(walked) <= most, walked
