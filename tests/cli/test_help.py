"""The help of all commands, as a terminal shows it."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from stephttp.cli.commands import app


def _commands() -> list[str]:
    found = []
    for name, command in vars(get_command(app))["commands"].items():
        inner = vars(command).get("commands", {})
        found += [f"{name} {one}" for one in inner] or [name]
    return found


@pytest.mark.parametrize("words", _commands(), ids=str)
def test_no_sentence_is_broken_before_the_edge(words: str) -> None:
    said = CliRunner().invoke(
        app, [*words.split(), "--help"], env={"COLUMNS": "300", "TERMINAL_WIDTH": "300"}
    )
    assert said.exit_code == 0, said.output
    text = re.split(r"Usage:[^\n]*\n", said.output)[1].split("╭")[0]
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    assert paragraphs
    for paragraph in paragraphs:
        assert "\n" not in paragraph
        assert paragraph.endswith((".", ":", "?"))
