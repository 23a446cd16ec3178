"""docs/cli.md tells of every command and every option that there is, and of no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer.main

from stephttp.cli.commands import app
from stephttp.cli.remote import Exit

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
CLI = (DOCS / "cli.md").read_text()


def commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """The commands below a group, by all of their words."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


ALL = commands(typer.main.get_command(app))


def options(command: Any) -> set[str]:
    return {
        name
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--") and name != "--help"
    }


def section(title: str) -> str:
    return CLI.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[tuple[str, ...]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def test_every_command_is_told() -> None:
    told = [re.fullmatch(r"`stephttp ([a-z -]+?)(?: [A-Z\[].*)?`", row[0]) for row in rows(
        CLI.split("\n## ")[0]
    )]  # fmt: skip
    assert {match[1] for match in told if match} == set(ALL)


def test_every_option_is_told() -> None:
    told = {name.strip("`"): set(re.findall(r"`(--[a-z-]+)`", row)) for name, row in rows(
        section("Options")
    )}  # fmt: skip
    told["start"] |= set(re.findall(r"`(--[a-z-]+)", (DOCS / "operations.md").read_text()))
    assert set(told) == set(ALL)
    for name, command in ALL.items():
        if name == "start":
            assert options(command) <= told[name]
        else:
            assert options(command) == told[name], name


def test_commands_with_json_are_told() -> None:
    with_json = {name for name, command in ALL.items() if "--json" in options(command)}
    assert {row[0].strip("`") for row in rows(section("Output"))} == with_json


def test_exit_codes_are_told() -> None:
    codes = re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    assert [int(code) for code in codes] == [code.value for code in Exit]


def test_each_option_says_what_it_is_for() -> None:
    for name, command in ALL.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), (name, parameter.name)
