"""Installs the tools that the benchmarks need into a folder of its own.

Python packages go into a virtual environment, npm's into a folder, both below `.bench/`, which git
ignores. `wrk` comes from Debian. Nothing here names a registry: pip, npm and apt know theirs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"


def python_of(checkout: Path) -> Path:
    """Return the interpreter of the benchmarks of a checkout."""
    return checkout / ".bench" / "venv" / "bin" / "python"


PYTHON = python_of(ROOT)
NODE = FOLDER / "node"
SERVERS = ["uvicorn", "uvloop", "httptools", "fastapi", "flask", "gunicorn"]
PEERS = Path(__file__).resolve().parent / "peers"


class MissingError(Exception):
    """A tool is not available here; the text says why."""


def prepare() -> None:
    """Install what all benchmarks need.

    Raises:
        MissingError: pip or apt could not.
    """
    FOLDER.mkdir(exist_ok=True)
    if not PYTHON.exists():
        say(f"making {PYTHON.parent.parent}")
        _run([sys.executable, "-m", "venv", str(PYTHON.parent.parent)])
        pip("-e", f"{ROOT}[engine]", *SERVERS)
    wrk()


def pip(*packages: str) -> None:
    """Install Python packages beside the servers."""
    say(f"pip install {' '.join(packages)}")
    _run([str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *packages])


def npm(*packages: str) -> Path:
    """Install npm packages, and return their folder.

    Raises:
        MissingError: there is no node, or npm could not.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        raise MissingError("node and npm are not installed (Debian: nodejs, npm)")
    if not (NODE / "node_modules").exists():
        say(f"npm install {' '.join(packages)}")
        NODE.mkdir(exist_ok=True)
        flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(NODE)]
        _run(["npm", "install", *flags, *packages])
    return NODE


def wrk() -> str:
    """Return the load generator.

    Raises:
        MissingError: it is not there, and apt could not install it.
    """
    if shutil.which("wrk") is None:
        if shutil.which("apt-get") is None or os.geteuid():
            raise MissingError("wrk is not installed, and only root can, with apt-get")
        say("apt-get install wrk")
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "wrk"])
    return "wrk"


def say(text: str) -> None:
    """Print progress to the error stream; the table goes to the output."""
    print(text, file=sys.stderr, flush=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise MissingError(f"{' '.join(command[:4])} failed: {' '.join(tail)}")
