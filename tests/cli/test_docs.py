"""docs/cli.md and docs/operations.md list all commands and options, and no others."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from stephttp.cli import key_sources
from stephttp.cli.commands import app
from stephttp.cli.engine_options import StartOptions
from stephttp.cli.exits import Exit
from stephttp.cli.start_command import resolve
from stephttp.engine import Settings

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
CLI = (DOCS / "cli.md").read_text()
OPERATIONS = (DOCS / "operations.md").read_text()


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


def start_rows() -> list[tuple[str, ...]]:
    """The table of the options of `start`: names, default, remark."""
    return rows(OPERATIONS.split("\n## Start\n")[1].split("\n## ")[0])


def as_documented(default: Any) -> str:
    if isinstance(default, int) and default and default % 2**20 == 0:
        return f"{default // 2**20} MiB"
    return f"{default:g}" if isinstance(default, float) else str(default)


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
    told["start"] |= set(re.findall(r"`(--[a-z-]+)", OPERATIONS))
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


def test_options_of_start_have_the_documented_defaults() -> None:
    documented = {
        name: default
        for names, default, *_ in start_rows()
        for name in re.findall(r"`(--[a-z-]+)", names)
    }
    assert set(documented) == options(ALL["start"])
    for parameter in ALL["start"].params:
        if parameter.default not in (None, False):
            assert as_documented(parameter.default) in documented[parameter.opts[0]]


def test_options_of_start_have_the_defaults_of_the_settings() -> None:
    # What differs is named here: an engine for production is open to fewer than one in a test.
    differing = {"db_path", "signing_keys", "event_keys", "private_hosts", "rate_limit"}
    options = StartOptions(db=Path("runs"), signing_key=["ab" * 32], event_key=["a" * 16])
    started, plain = resolve(options, {}), Settings()
    assert differing == {
        field.name
        for field in fields(Settings)
        if getattr(started, field.name) != getattr(plain, field.name)
    }


@pytest.mark.parametrize(
    ("option", "variables"),
    [
        ("--signing-key", key_sources.SIGNING_KEY),
        ("--event-key", key_sources.EVENT_KEY),
        ("--metrics-token", key_sources.METRICS_TOKEN),
        ("--dashboard-password-file", (key_sources.DASHBOARD_PASSWORD,)),
        ("--db", ("STEPHTTP_DB",)),
    ],
)
def test_variables_are_named_where_their_options_are(
    option: str, variables: tuple[str, ...]
) -> None:
    (parameter,) = (one for one in ALL["start"].params if option in one.opts)
    (names,) = (row[0] for row in start_rows() if f"`{option}" in row[0])
    for variable in variables:
        assert variable in parameter.help or variable == parameter.envvar
        assert f"`{variable}`" in names
