"""Commands in the tests' own process, for what a process of its own would not prove any better."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import pytest

from stephttp.cli import main
from tests.acceptance.processes import inherited


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, and the lines of both streams."""

    code: int
    out: list[str]
    err: list[str]

    def said(self) -> str:
        return "\n".join(["stdout:", *self.out, "stderr:", *self.err])


def run(*words: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run `stephttp` with these words in the environment that a `Process` would have.

    Signals, standard input, terminals, broken pipes and servers need a real process.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        environment = inherited() | dict(env or {})
        for name in os.environ.keys() - environment:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        time.tzset()
        # As the console script has it: its name is in what it says of its use.
        patch.setattr(sys, "argv", ["stephttp", *words])
        patch.setitem(sys.modules, "__main__", ModuleType("__main__"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as end:
            main()
    time.tzset()
    assert isinstance(end.value.code, int)
    return Ended(end.value.code, _lines(out), _lines(err))


def _lines(stream: io.TextIOWrapper) -> list[str]:
    stream.seek(0)
    return [line.rstrip("\n") for line in stream]
