"""Mutation testing: `python -m tests.mutation [NAME ...]`, with mutmut's names of mutants."""

from __future__ import annotations

import sys
from pathlib import Path

from mutmut import __main__ as mutmut
from mutmut.configuration import config

from tests.mutation.operators import leave_messages_out
from tests.mutation.report import report
from tests.mutation.runner import Mutants, run

FOLDER = Path("mutants")


def make_mutants() -> None:
    """Let mutmut write them, with the tests beside them, into `mutants`."""
    leave_messages_out()
    FOLDER.mkdir(exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.setup_source_paths()
    mutmut.create_mutants(1)


def main(patterns: list[str]) -> int:
    make_mutants()
    outcomes: dict[str, str] = {}

    def done(name: str, outcome: str) -> None:
        outcomes[name] = outcome
        print(f"{outcome} {name}", file=results, flush=True)

    settings = config()
    arguments = [*settings.pytest_add_cli_args, *settings.pytest_add_cli_args_test_selection]
    here = Path.cwd()
    with (here / FOLDER / "outcomes").open("a") as results:
        run(FOLDER, arguments, Mutants(Path("mutants/src"), patterns, done))
    return report(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
