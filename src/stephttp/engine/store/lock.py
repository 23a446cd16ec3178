"""One engine per database file: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from stephttp.errors import ConfigurationError

SUFFIX = "-lock"


class FileLock:
    """Holds `<database>-lock`, which also says who holds it.

    A file of its own, because closing any descriptor of the database would release the locks
    that SQLite has on it. It is never deleted: another process may just be opening it.

    Args:
        path: the database's; links are followed, so that two names of a file share its lock.
    """

    def __init__(self, path: str) -> None:
        self._database = path
        self._path = Path(os.path.realpath(path) + SUFFIX)
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ConfigurationError: another engine has it, or the file cannot be made.
        """
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"cannot open the database {self._database!r}: {error}"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise ConfigurationError(
                f"another engine (process {holder}) works with the database {self._database!r}; "
                "stop it first, or use another file: one engine per file"
            ) from None
        except OSError as error:
            # The lock works without the note. But a disk that has no room for four bytes has none
            # for runs either, and it is better to learn that at the start.
            os.close(handle)
            raise ConfigurationError(
                f"cannot lock the database {self._database!r}: {error}"
            ) from error
        self._handle = handle

    def release(self) -> None:
        """Give the lock back; without effect if it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
