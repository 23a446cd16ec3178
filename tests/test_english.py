"""Docs, README, examples and code keep the rules of plain English that a pattern can check.

    python -m tests.test_english [FOLDER]      how many matches each pattern has, by area

`CHECKED` says which files must have no match (docs/design.md 5).
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Rule(NamedTuple):
    """Words to avoid, and words to write instead."""

    pattern: str
    instead: str


_CLAUSE = r"(?:What|Who|Whose|That which)\b[^.?:|]*\."
RULES = {
    "is none": Rule(r"\b(?:is|are|was|were|be) none\b", "is not one, there is no"),
    "is no thing": Rule(
        r"(?<!here )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|different\b|way\b)\w+",
        "is not a",
    ),
    "own accord": Rule(r"\bof (?:its|their) own accord\b", "by itself"),
    "whoever": Rule(r"(?i)\bwho(?:m|so)?ever\b", "everyone who, the caller"),
    "somebody": Rule(r"(?i)\b(?:some|any|every|no)body\b", "the caller, you, no client"),
    "for ever": Rule(r"\bfor ever\b", "forever"),
    "goes on": Rule(r"\b(?:go|goes|going|gone|went) on\b", "continues"),
    "begins": Rule(r"(?i)\b(?:begin|begins|began|begun|beginning)\b", "starts"),
    "told": Rule(r"\btold\b|\btells? (?:of|about)\b", "says, reports, describes, learns"),
    "letters": Rule(r"\bletters?\b", "characters"),
    "besides": Rule(r"(?i)\bbesides\b", "in addition"),
    "we": Rule(r"\b(?:[Ww]e|us|[Oo]ur|ours|of yours)\b", "the SDK, the engine, your"),
    "old words": Rule(
        r"\b(?:shall|lest|whence|hence|thereof|wherein|anew|heed(?:s|ed)?)\b", "a plain word"
    ),
    "clause as a subject": Rule(
        rf'(?m)(?:^(?:[-*] )?|(?<=[.;|] )|(?<=""")){_CLAUSE}', "the noun first, the verb second"
    ),
}

AREAS = {
    "docs": ("docs/**/*.md", "README.md", "CONTRIBUTING.md", "examples/**/*.md"),
    "examples": ("examples/**/*.py", "benchmarks/**/*.py"),
    "src": ("src/**/*.py", "src/**/*.sql", "src/**/*.html"),
}
OF_PROSE = frozenset({"begins", "we", "clause as a subject"})
"""Rules for what is read as prose. In code a docstring may be a noun with a clause ("What is kept
of a span"), runs begin in `began_ms`, and "our engine" is not an Inngest server."""

EXCEPTIONS = {
    ("benchmarks/bench_import.py", "begins"): "the name of a variable, in code",
    ("benchmarks/calls.py", "we"): "an argument of the command line",
    ("src/stephttp/engine/dashboard/templates/run.html", "is none"): "a test of Jinja",
    ("src/stephttp/engine/store/sql/schema.sql", "own accord"): "the schema stays as it is",
    ("src/stephttp/engine/store/sql/schema.sql", "somebody"): "the schema stays as it is",
    ("src/stephttp/engine/store/sql/schema.sql", "old words"): "the schema stays as it is",
}


def files(globs: tuple[str, ...], root: Path = ROOT) -> list[Path]:
    found = {path for glob in globs for path in root.glob(glob)}
    return sorted(path for path in found if "node_modules" not in path.parts)


def prose(path: Path) -> str:
    """Return the text of a file that people read: of code, only the comments and strings."""
    text = path.read_text()
    if path.suffix == ".md":
        text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"^#+ .*$", "", text, flags=re.MULTILINE)
        return re.sub(r"`[^`]*`|\]\([^)]*\)", "`", text)
    if path.suffix != ".py":
        return text
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    strings = [token.string for token in tokens if token.type in kinds]
    plain = [re.sub(r"`[^`]*`|\{[^{}]*\}", "`", string) for string in strings]
    return "\n\n".join(string for string in plain if " " in string)


def found(text: str, rule: Rule) -> list[str]:
    """Return the lines of a text that do not keep a rule."""
    return [
        text[text.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0].strip()
        for match in re.finditer(rule.pattern, text)
    ]


ALL = [str(path.relative_to(ROOT)) for area in AREAS.values() for path in files(area)]


@pytest.mark.parametrize("path", ALL)
def test_the_words_are_plain(path: str) -> None:
    text = prose(ROOT / path)
    assert [
        f"{name}: {line} (write: {rule.instead})"
        for name, rule in RULES.items()
        if (path, name) not in EXCEPTIONS and not (path.startswith("src/") and name in OF_PROSE)
        for line in found(text, rule)
    ] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("is none", "An answer of a proxy is none of these."),
        ("is no thing", "An answer that is no success."),
        ("goes on", "The request goes on."),
        ("we", "This works for us."),
        ("told", "The caller is told so."),
        ("clause as a subject", "It ended. What is left\nis dropped."),
        ("clause as a subject", "- What it costs is measured."),
    ],
)
def test_a_pattern_finds(name: str, text: str) -> None:
    assert found(text, RULES[name])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("is no thing", "There is no run. The run is no longer there."),
        ("we", "340 µs, a status, you use it"),
        ("clause as a subject", "What does it cost? What works: all of it."),
        ("clause as a subject", "It says what is left."),
    ],
)
def test_a_pattern_leaves_alone(name: str, text: str) -> None:
    assert not found(text, RULES[name])


def figures(root: Path) -> dict[str, Counter[str]]:
    """Count the matches of each pattern, by area."""
    return {
        area: Counter(
            name
            for path in files(globs, root)
            for text in [prose(path)]
            for name, rule in RULES.items()
            for _ in found(text, rule)
        )
        for area, globs in AREAS.items()
    }


if __name__ == "__main__":
    counted = figures(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
    print("| pattern |", " | ".join(counted), "|")
    print("|---|" + "---|" * len(counted))
    for name in RULES:
        print(f"| {name} |", " | ".join(str(area[name]) for area in counted.values()), "|")
    print("| all |", " | ".join(str(area.total()) for area in counted.values()), "|")
