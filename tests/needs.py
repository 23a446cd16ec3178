"""What tests need of a machine beside Python."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

_INSTALL_DEADLINE = 150


def lacking(what: str) -> NoReturn:
    """Skip the test, with the reason; or fail it in the continuous integration, which installs
    all that is needed."""
    if os.environ.get("CI"):
        pytest.fail(f"this test needs {what}; .ci/run should install it")
    pytest.skip(f"no {what} here; with CI set this is a failure")


def command(name: str, package: str = "") -> str:
    """The path of a command.

    Args:
        package: the Debian package that it is in, if that has another name.
    """
    # Debian keeps servers where only the path of root leads.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    return found or lacking(f"{name} (Debian: {package or name})")


def npm_packages(folder: Path) -> None:
    """Install what the `package.json` of a folder names. Installing needs a registry."""
    npm = command("npm")
    with _locked(folder):
        installed = subprocess.run(
            [npm, "install"],  # its options are in `.npmrc`
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_INSTALL_DEADLINE,
            check=False,
        )
    if installed.returncode:
        pytest.fail(f"npm install failed:\n{installed.stdout}{installed.stderr}")


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Let one process at a time install; the others then find that all is there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
