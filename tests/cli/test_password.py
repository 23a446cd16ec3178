"""Where the dashboard's password comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stephttp.cli.commands import app
from stephttp.cli.key_sources import DASHBOARD_PASSWORD
from stephttp.cli.password_option import dashboard_password
from stephttp.engine.dashboard import passwords
from stephttp.errors import ConfigurationError

PASSWORD = "correct horse battery"


def test_a_file_counts_more_than_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"# of the dashboard\n\n{PASSWORD}\n")
    assert passwords.verify(
        PASSWORD, dashboard_password(file, {DASHBOARD_PASSWORD: "something else"})
    )
    assert passwords.verify(PASSWORD, dashboard_password(None, {DASHBOARD_PASSWORD: PASSWORD}))
    assert dashboard_password(None, {}) == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot read"), (b"# nothing\n", "holds no password"), (b"\xff", "cannot read"),
     (b"short", "too short"), (b"scrypt$1$2", "not a valid hash")],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=complaint):
        dashboard_password(file, {})


def test_the_command_prints_a_hash_of_what_it_reads() -> None:
    made = CliRunner().invoke(app, ["dashboard-password"], input=f"{PASSWORD}\n")
    assert made.exit_code == 0
    assert passwords.verify(PASSWORD, made.stdout.strip())
    assert PASSWORD not in made.stdout
    assert CliRunner().invoke(app, ["dashboard-password"], input="short\n").exit_code == 2
