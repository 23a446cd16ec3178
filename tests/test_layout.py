"""README, docs/design.md and docs/modules.md name the files and packages that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import module_map, portions

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "stephttp"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_TABLE = re.compile(
    r"^\| [^|`]*(?:`([^`]*)`)?[^|`]* \| *[\w ]* *\|\n\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE
)
_CODE = re.compile(r"`([^`]+)`")
_PATH = re.compile(r"`((?:src/stephttp|stephttp/engine)/[\w./*]+)`")


def exists(base: Path, name: str) -> bool:
    """Say whether a file, a package or a module of this name is there."""
    path = base / name
    return path.exists() or path.with_name(f"{path.name}.py").exists()


def rows(text: str) -> list[tuple[Path, str]]:
    """Return the names in the first columns of tables, each with the folder of its table."""
    return [
        (ROOT / (folder or "."), name)
        for folder, lines in _TABLE.findall(text)
        for line in lines.splitlines()
        for name in _CODE.findall(line.split(" | ")[0])
    ]


def section(page: str, heading: str) -> str:
    text = (ROOT / page).read_text()
    return text.split(f"\n{heading}\n")[1].split("\n## ")[0]


LAYOUT = {
    "README.md": section("README.md", "## Where things are"),
    "docs/design.md": section("docs/design.md", "## 4. Layout"),
}


@pytest.mark.parametrize("page", LAYOUT)
def test_the_named_files_exist(page: str) -> None:
    named = rows(LAYOUT[page])
    assert len(named) > 30
    assert [f"{base}: {name}" for base, name in named if not exists(base, name)] == []


@pytest.mark.parametrize("page", LAYOUT)
def test_every_package_is_named(page: str) -> None:
    named = {name.rstrip("/") for _, name in rows(LAYOUT[page])}
    packages = [
        path.parent.name
        for folder in (PACKAGE, PACKAGE / "engine")
        for path in folder.glob("*/__init__.py")
    ]
    assert len(packages) > 15
    assert set(packages) - named == {"engine"}


def test_every_module_beside_the_packages_is_named() -> None:
    named = {name for _, name in rows(LAYOUT["docs/design.md"])}
    modules = {
        path.name
        for folder in (PACKAGE, PACKAGE / "engine")
        for path in folder.glob("*.py")
        if not path.name.startswith("_")
    }
    assert {module for module in modules if not {module, module[:-3]} & named} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_the_text_exist(page: Path) -> None:
    assert [name for name in _PATH.findall(page.read_text()) if not exists(ROOT, name)] == []


def test_the_map_lists_every_module() -> None:
    """`python -m tests.module_map` writes the map again where this fails."""
    written = module_map.PAGE.read_text().split(module_map.START)[1].splitlines()
    made = module_map.made().splitlines()
    assert {"missing": sorted({*made} - {*written}), "too many": sorted({*written} - {*made})} == {
        "missing": [],
        "too many": [],
    }
    assert written == made


def test_every_module_says_what_it_does_in_words_of_its_own() -> None:
    said: dict[str, list[str]] = {}
    for path in module_map.files():
        name = str(path.relative_to(module_map.SRC))
        said.setdefault(module_map.first_paragraph(path), []).append(name)
    assert "" not in said
    assert [names for names in said.values() if len(names) > 1] == []


def test_the_files_in_the_table_of_topics_exist() -> None:
    written = module_map.PAGE.read_text().split(module_map.START)[0]
    lines = [line for line in written.splitlines() if line.startswith("|")]
    named = {name for line in lines for name in _CODE.findall(line) if "/" in name}
    assert len(named) > 80
    assert [name for name in sorted(named) if not any(PACKAGE.glob(name))] == []


TWINS = "ASGI and WSGI, or async and blocking"
BOTH_SIDES = "the SDK's part and the engine's, of one thing"
SAME_NAMES = {
    "_options.py": TWINS, "_outside.py": TWINS, "_racing.py": TWINS, "stream.py": TWINS,
    "event_answer.py": TWINS,
    "first_call.py": TWINS, "messages.py": TWINS, "reentry.py": TWINS, "request.py": TWINS,
    "result.py": TWINS, "scope.py": TWINS, "serve_call.py": TWINS,
    "checkpoints.py": BOTH_SIDES, "idempotency.py": BOTH_SIDES, "leases.py": BOTH_SIDES,
    "progress.py": BOTH_SIDES, "run.py": BOTH_SIDES,
    "AsyncBody": "SQLAlchemy and Django", "BlockingBody": "SQLAlchemy and Django",
    "TransactionBody": "SQLAlchemy and Django", "Transactions": "SQLAlchemy and Django",
    "AsyncTransactions": "SQLAlchemy and Django",
    "EventAnswer": TWINS, "Input": TWINS, "ReceivedCall": TWINS,
    "Run": BOTH_SIDES, "Settings": BOTH_SIDES, "Step": BOTH_SIDES,
}  # fmt: skip
"""Names of modules and public classes that stand twice in `src`, and what makes them the same."""


def test_no_two_modules_or_classes_of_a_name_mean_different_things() -> None:
    paths = [path for path in module_map.files() if path.suffix == ".py"]
    names = [path.name for path in paths if path.name != "__init__.py"]
    for path in paths:
        names += re.findall(r"^class ([A-Za-z]\w*)", path.read_text(), re.MULTILINE)
    twice = {name for name in names if names.count(name) > 1}
    assert twice == {*SAME_NAMES}, "rename one of them, or say here why they are the same"


def test_the_tests_that_take_longest_are_there() -> None:
    named = {*portions.LONGEST, *portions.APART}
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).exists()] == []


@pytest.mark.parametrize(
    ("nodeid", "shares"),
    [
        ("tests/core/test_run.py::test_a[b]", "tests/core/test_run.py"),
        ("tests/acceptance/test_load.py::test_a[1]", "tests/acceptance/test_load.py::test_a[1]"),
        (
            "tests/matrix/test_matrix.py::test_cell[gather-late-fastapi-def]",
            "tests/matrix/test_matrix.py::fastapi-def",
        ),
        (
            "tests/matrix/test_matrix.py::test_cell_on_a_loop[race-first-fastapi]",
            "tests/matrix/test_matrix.py::fastapi",
        ),
    ],
)
def test_a_worker_gets_what_shares_something(nodeid: str, shares: str) -> None:
    assert portions.portion(nodeid) == shares


def test_those_that_take_longest_come_first_of_their_kind() -> None:
    files = ["core/a.py", "cli/b.py", *portions.LONGEST]
    places = portions.spread(files)
    ordered = sorted(files, key=lambda name: places[name])
    for kind in (True, False):
        of_kind = [name for name in ordered if name.startswith(portions.WAITING) is kind]
        longest = [name for name in portions.LONGEST if name.startswith(portions.WAITING) is kind]
        assert of_kind[:-1] == longest


def test_few_files_are_long() -> None:
    """A file holds one idea, in about 300 lines. Another long one needs a reason, as these have."""
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text().splitlines()) > 300
    }
    assert long <= {
        "errors.py", "_adapters/asgi/scope.py", "_run/scope.py", "_core/run.py", "engine/engine.py",
    }  # fmt: skip
