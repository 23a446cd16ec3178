"""What the handlers of every application here have in common: the work that their steps do."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import stephttp

NAP = timedelta(milliseconds=10)
"""Long enough to go on in another call."""

provider = stephttp.setup("http://127.0.0.1")

_attempts: Counter[str] = Counter()


def greet(name: str) -> str:
    return f"Hello {name}"


def flaky(key: str) -> int:
    """Works at the third attempt. Each test brings a key of its own."""
    _attempts[key] += 1
    if _attempts[key] < 3:
        raise ConnectionError("no luck")
    return _attempts[key]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def behind(gate: str) -> None:
    """Wait for a file, and write another one: what an application does behind its response."""
    while not Path(gate).exists():
        time.sleep(0.01)
    with Path(f"{gate}.done").open("a") as file:
        file.write("done ")
