"""What happened, written down outside of everything that can be killed.

A file that processes append to, a line of JSON at a time, each in one `write`: what a process
wrote survives its SIGKILL, no process that is stopped holds a lock, and all share the machine's
monotonic clock.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Ledger:
    """Appends entries to a file, and reads them.

    Entries of applications have a `label`, the name of the request that they belong to. By `kind`:

    - `call`: a handler began; `run`.
    - `step`: the body of a step began; `run`, `step`, and the `nonce` that it will return.
    - `answer`: a handler is about to return; `run`, its `values`, and its `cookies`.
    - `ack`: an acknowledgement of the engine reached an application in full; `nonces`.
    - `got`: a caller has an answer; `status`, `values`, `cookies`.
    - `refused`: a caller was not accepted; `status`, `text`.
    - `gave-up`: a caller that was accepted waits no more; what it saw `last`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, kind: str, **fields: Any) -> None:
        """Append an entry; `t` is the time, in nanoseconds of the monotonic clock."""
        entry = {"kind": kind, "t": time.monotonic_ns(), "pid": os.getpid(), **fields}
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def entries(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Return what was written, from an offset of the file on."""
        with self.path.open("rb") as file:
            file.seek(since)
            for line in file:
                yield json.loads(line)

    def size(self) -> int:
        """Return the size of the file, an offset for `entries`."""
        return self.path.stat().st_size

    def close(self) -> None:
        os.close(self._file)
