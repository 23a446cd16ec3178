"""The import contract of pyproject.toml names packages, and nothing escapes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CASES = {
    "as it is": ({}, ""),
    "a module that no layer names": ({"_stray.py": ""}, "stephttp._stray"),
    "a package of the engine that no layer names": (
        {"engine/stray/__init__.py": ""},
        "stephttp.engine.stray",
    ),
    "an import that runs backwards": (
        {"_core/stray.py": "from stephttp.provider import Provider\n"},
        "stephttp._core.stray -> stephttp.provider",
    ),
    "one that only type checkers see": (
        {
            "engine/rules/stray.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n"
            "    from stephttp.engine.work import save\n"
        },
        "stephttp.engine.rules.stray -> stephttp.engine.work",
    ),
    "the engine uses the SDK": (
        {"engine/model/stray.py": "from stephttp._core import run\n"},
        "stephttp.engine.model.stray -> stephttp._core.run",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_module_outside_the_contract_and_an_import_against_it_are_found(
    case: str, tmp_path: Path
) -> None:
    files, complaint = CASES[case]
    shutil.copytree(
        ROOT / "src/stephttp", tmp_path / "stephttp", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in files.items():
        (tmp_path / "stephttp" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "stephttp" / name).write_text(text)
    # In the copy, so that it is the copy that is imported.
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if files else 0), done.stdout + done.stderr
    assert complaint in done.stdout
