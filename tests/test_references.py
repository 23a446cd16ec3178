"""References in code, comments and docs can be followed within the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("src", "tests", "benchmarks", "docs", "examples", "conformance", "deploy")
ENDINGS = {".py", ".md", ".sql", ".toml", ".yml", ".html", ".js", ".mjs", ".ts", ".service"}
NAMED = ("design", "protocol")

_NUMBER = r"(?:\d\d?(?:\.\d+)?|[SJGP]\d+)\b"
_AND = r"(?:, and |, | and | to |-)"
_REFERENCE = re.compile(rf"docs/(design|protocol)\.md ({_NUMBER}(?:{_AND}{_NUMBER})*)")
_BROKEN_LINE = re.compile(r"\s*\n[ \t]*(?:#+ |-- |// )?")
_HEADING = re.compile(r"^#{2,3} (\d+(?:\.\d+)?)[. ]", re.MULTILINE)
_QUIRK = re.compile(r"^\| ([SJGP]\d+) \|", re.MULTILINE)
_OUTSIDE = re.compile(
    r"\b(?:PROTOCOL|DESIGN|REAL-SERVER)(?:\.md\b| (?:section |decision )?[SJGP]?\d)|\.\./shared\b"
)


def _texts() -> dict[str, str]:
    paths = [path for place in PLACES for path in (ROOT / place).rglob("*")]
    paths += [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "mkdocs.yml", ROOT / "pyproject.toml"]
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in paths
        if (path.suffix in ENDINGS or path.name == "Makefile")
        and "node_modules" not in path.parts
        and path != Path(__file__).resolve()
    }


TEXTS = _texts()
SECTIONS = {name: set(_HEADING.findall(TEXTS[f"docs/{name}.md"])) for name in NAMED}
SECTIONS["protocol"] |= set(_QUIRK.findall(TEXTS["docs/protocol.md"]))


def references(text: str) -> list[tuple[str, str]]:
    """Documents and the numbers of their sections that a text cites."""
    return [
        (document, number)
        for document, numbers in _REFERENCE.findall(_BROKEN_LINE.sub(" ", text))
        for number in re.findall(_NUMBER, numbers)
    ]


def test_every_cited_section_exists() -> None:
    cited = {(file, *found) for file, text in TEXTS.items() for found in references(text)}
    assert len(cited) > 80
    assert [
        (file, document, number)
        for file, document, number in sorted(cited)
        if number not in SECTIONS[document]
    ] == []


@pytest.mark.parametrize("document", NAMED)
def test_a_document_names_only_sections_that_it_has(document: str) -> None:
    # In the documents themselves: `(13.5)`, `(13.7, 13.6)`, `in section 14`.
    text = re.sub(r"```.*?```|`[^`]*`", "", TEXTS[f"docs/{document}.md"], flags=re.DOTALL)
    own = re.findall(rf"\(((?:{_NUMBER})(?:, {_NUMBER})*)\)|[Ss]ections? ({_NUMBER})", text)
    numbers = {number for pair in own for found in pair for number in re.findall(_NUMBER, found)}
    assert numbers
    assert numbers - SECTIONS[document] == set()


def test_nothing_outside_of_the_repository_is_cited() -> None:
    lines = [
        f"{file}: {line.strip()}"
        for file, text in TEXTS.items()
        for line in text.splitlines()
        if _OUTSIDE.search(line)
    ]
    assert lines == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see docs/protocol.md 6.3.", [("protocol", "6.3")]),
        ("(docs/protocol.md 4, S1 and 7)", [("protocol", number) for number in ("4", "S1", "7")]),
        ("# docs/protocol.md 4.2\n# to 4.4", [("protocol", "4.2"), ("protocol", "4.4")]),
        ("docs/design.md 3.8, and more", [("design", "3.8")]),
        ("docs/protocol.md J1", [("protocol", "J1")]),
        ("docs/protocol.md is long", []),
    ],
)  # fmt: skip
def test_what_is_a_reference(text: str, found: list[tuple[str, str]]) -> None:
    assert references(text) == found
