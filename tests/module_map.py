"""The map of all modules in docs/modules.md, made of the first paragraphs of their docstrings.

python -m tests.module_map      writes it; tests/test_layout.py says where it is out of date
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
PAGE = ROOT / "docs" / "modules.md"
START = "<!-- From here on: python -m tests.module_map -->\n"
"""The rest of the page is made; what is above is written by hand."""

PARTS = {
    "SDK": (
        "stephttp", "stephttp/step", "stephttp/sync", "stephttp/_run", "stephttp/_core",
        "stephttp/_client", "stephttp/_adapters", "stephttp/_wire", "stephttp/integrations",
        "stephttp/testing", "stephttp_pytest", "stephttp/cli",
    ),
    "Engine": (
        "stephttp/engine", "stephttp/engine/model", "stephttp/engine/rules",
        "stephttp/engine/outbound", "stephttp/engine/store", "stephttp/engine/work",
        "stephttp/engine/live", "stephttp/engine/functions", "stephttp/engine/traces",
        "stephttp/engine/reading",
        "stephttp/engine/web", "stephttp/engine/api", "stephttp/engine/dashboard",
    ),
}  # fmt: skip
"""The packages, in the order of the house (docs/design.md 4)."""

ENDINGS = {".py", ".sql", ".html", ".js", ".css"}
_COMMENT = re.compile(
    r"(?:\{#(?P<html>.*?)#\}|/\*(?P<css>.*?)\*/|(?P<line>(?:(?:--|//) ?[^\n]*\n)+))", re.DOTALL
)


def paragraphs(path: Path) -> list[str]:
    """Return the paragraphs in which a file says what is in it."""
    text = path.read_text()
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text)) or ""
    elif (comment := _COMMENT.match(text)) is not None:
        said = next(part for part in comment.groups() if part)
        said = re.sub(r"(?m)^ *(?:--|//) ?", "", said).strip()
    else:
        said = ""
    return said.split("\n\n")


def first_paragraph(path: Path) -> str:
    """Return what a file is for, in one line, as it stands in a table."""
    line = " ".join(paragraphs(path)[0].split())
    return line.removesuffix(" Pure.").replace("|", r"\|")


def package_of(path: Path) -> str:
    """Return the package of the map that a file belongs to: the nearest that is listed."""
    folder = path.parent.relative_to(SRC)
    listed = {package for packages in PARTS.values() for package in packages}
    return next(str(place) for place in (folder, *folder.parents) if str(place) in listed)


def files() -> list[Path]:
    """Return all files of `src` that people have written, in order."""
    return sorted(
        (path for path in SRC.rglob("*") if path.suffix in ENDINGS and "vendor" not in path.parts),
        key=lambda path: (path.parent.parts, path.name),
    )


def _section(package: str, within: list[Path]) -> Iterator[str]:
    start = SRC / package / "__init__.py"
    yield f"### `src/{package}`"
    yield first_paragraph(start)
    for more in paragraphs(start)[1:]:
        if re.match("[A-Z`]", more):  # not an example
            yield " ".join(more.split())
    yield "\n".join(
        [
            f"| in `src/{package}` | |",
            "|---|---|",
            *(
                f"| `{path.relative_to(SRC / package)}` | {first_paragraph(path)} |"
                for path in within
                if path != start
            ),
        ]
    )


def made() -> str:
    """Return the part of the page that is made."""
    by_package: dict[str, list[Path]] = {}
    for path in files():
        by_package.setdefault(package_of(path), []).append(path)
    parts: list[str] = []
    for part, packages in PARTS.items():
        parts.append(f"## {part}")
        for package in packages:
            parts += _section(package, by_package[package])
    return "\n" + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    written = PAGE.read_text().split(START)[0]
    PAGE.write_text(written + START + made())
