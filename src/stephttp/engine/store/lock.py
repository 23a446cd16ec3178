"""One engine per database file: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

from stephttp.errors import ConfigurationError

SUFFIX = "-lock"


class FileLock:
    """Holds `<database>-lock`, which also says who holds it, and under Linux the database itself.

    A file of its own, because closing any descriptor of the database would release the locks
    that SQLite has on it. It is never deleted: another process may just be opening it. If people
    delete it, the lock on the database still stands: Linux has it apart from those of SQLite.
    Elsewhere it could be in their way.

    Args:
        path: the database's; links are followed, so that two names of a file share its lock.
    """

    def __init__(self, path: str) -> None:
        self._database = path
        self._path = Path(os.path.realpath(path) + SUFFIX)
        self._handles: list[int] = []

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ConfigurationError: another engine has it, the file cannot be made, or the database has
                several names.
        """
        self._refuse_links()
        try:
            self._take(self._path, note=True)
            if sys.platform == "linux":
                self._take(Path(self._database), note=False)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back, once SQLite has closed the file; without effect if it is not held."""
        for handle in self._handles:
            os.close(handle)
        self._handles.clear()

    def _refuse_links(self) -> None:
        """Refuse a database whose names share a file: SQLite keeps one log for each name, and each
        would lack what is in the other."""
        with suppress(FileNotFoundError):
            names = os.stat(self._database).st_nlink
            if names > 1:
                raise ConfigurationError(
                    f"the database {self._database!r} has {names} names (hard links), which SQLite "
                    "would take for different databases; copy it, or remove the other names"
                )

    def _take(self, path: Path, *, note: bool) -> None:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"cannot open the database {self._database!r}: {error}"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if note:
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            read = os.pread(handle, 32, 0) if note else b""
            holder = read.decode(errors="replace").strip() or "unknown"
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
        self._handles.append(handle)
