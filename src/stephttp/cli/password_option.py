"""The dashboard's password: where it is configured, and `stephttp dashboard-password`, which
makes its hash.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from stephttp.cli.key_sources import DASHBOARD_PASSWORD
from stephttp.cli.terminal import complain
from stephttp.engine.dashboard import passwords
from stephttp.errors import ConfigurationError


def dashboard_password(file: Path | None, environ: Mapping[str, str]) -> str:
    """Return the hash of the configured password; empty if no password is configured.

    Args:
        file: has the password in its first line that is not a comment.
        environ: `STEPHTTP_DASHBOARD_PASSWORD` counts if there is no file.

    Raises:
        ConfigurationError: the file cannot be read or is empty, or the password cannot be used.
    """
    configured = environ.get(DASHBOARD_PASSWORD, "").strip()
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the file {str(file)!r}: {error}") from None
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigurationError(f"the file {str(file)!r} holds no password")
        configured = found[0]
    return passwords.as_hash(configured) if configured else ""


def print_hash() -> int:
    """Ask for a password (or read it from standard input that is not a terminal); print its hash.

    Returns:
        The exit code: 0, or 2 if the password cannot be used.
    """
    if sys.stdin.isatty():
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < passwords.SHORTEST:
        complain(f"the password is too short: it needs {passwords.SHORTEST} characters or more")
        return 2
    typer.echo(passwords.hash_password(password))
    return 0
