"""The documentation is a site that builds without a warning, and leaves no public name out."""

import re
import subprocess
import sys
from pathlib import Path

import stephttp
from stephttp import step
from stephttp.sync import step as sync_step
from tests.acceptance.processes import DEADLINE, ROOT


def test_the_site_has_every_public_name() -> None:
    bin = Path(sys.executable).parent
    # Not to be installed anew by a test.
    command = ["make", "--no-print-directory", f"--assume-old={bin.parent}/.ready", "docs"]
    made = subprocess.run(
        [*command, f"BIN={bin}", f"VENV={bin.parent}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    pages = sorted((ROOT / "site").rglob("*.html"))
    reference = "".join(page.read_text() for page in pages if "reference" in page.parts)
    names = set(re.findall(r'id="?(stephttp[\w.]*)', reference))
    assert {f"stephttp.{name}" for name in stephttp.__all__} <= names
    assert {f"stephttp.step.{name}" for name in step.__all__} <= names
    blocking = sync_step.__all__
    assert {f"stephttp.sync.step.{name}" for name in blocking} <= names
    # A signature with its parameters, what it gives and raises, as the docstring has it.
    assert all(word in reference for word in ("Parameters:", "Returns:", "Raises:"))
    for page in (ROOT / "docs").rglob("*.md"):
        where = page.relative_to(ROOT / "docs").with_suffix("")
        name = where.parent if where.name == "index" else where
        assert ROOT / "site" / name / "index.html" in pages, page


def test_every_page_is_in_the_navigation_and_in_the_index() -> None:
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    navigation = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(navigation) == sorted(pages)
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", (docs / "index.md").read_text()))
    # The index of the reference lists its pages.
    assert {page for page in pages if not page.startswith("reference/")} <= linked | {"index.md"}
