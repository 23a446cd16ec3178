"""What is installed: the wheel holds what the dashboard needs, and the licences of others."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.acceptance.processes import ROOT

_DEADLINE = 150
DASHBOARD = Path("src/stephttp/engine/dashboard")


def test_the_wheel_has_pages_assets_and_licences(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps"]
    built = subprocess.run(
        [*pip, "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, timeout=_DEADLINE, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    wheel_file = zipfile.ZipFile(wheel)
    names = set(wheel_file.namelist())
    ours = [path for path in (ROOT / DASHBOARD).rglob("*") if path.is_file()]
    shipped = {path.relative_to(ROOT / "src").as_posix() for path in ours if path.suffix != ".pyc"}
    assert shipped <= names
    plugin = ROOT / "src" / "stephttp_pytest"
    assert {f"stephttp_pytest/{path.name}" for path in plugin.glob("*.py")} <= names
    (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
    assert b"[pytest11]\nstephttp_pytest = stephttp_pytest\n" in wheel_file.read(entry_points)
    vendor = "stephttp/engine/dashboard/static/vendor/"
    for licence in (
        "htmx/LICENSE", "idiomorph/LICENSE", "uplot/LICENSE",
        "fonts/LICENSE-instrument-sans", "fonts/LICENSE-geist-mono",
    ):  # fmt: skip
        assert f"{vendor}{licence}" in names
    assert {"templates/base.html", "static/tokens.css"} <= {
        name.removeprefix("stephttp/engine/dashboard/") for name in names
    }
