"""Database servers of the tests' own, which they start and stop, each in a folder below /tmp.

The servers listen on sockets in their folders only, and store nothing safely: they die with the
test.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests import needs

_DEADLINE = 60.0


@contextmanager
def postgres(*, safe: bool = False) -> Generator[Path]:
    """Run a PostgreSQL server; the folder of its socket. Its user and its database: `postgres`.

    Args:
        safe: whether a commit is on the disk, as by default.
    """
    initdb = _postgres_command("initdb")
    with _folder("pg") as (folder, user):
        options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]
        _run([initdb, "-D", str(folder / "data"), *options, "--locale=C.UTF-8"], user)
        server = [_postgres_command("postgres"), "-D", str(folder / "data"), "-k", str(folder)]
        settings = {"listen_addresses": "", "max_connections": "60", "shared_buffers": "32MB"}
        if not safe:
            settings |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off")
        for name, value in settings.items():
            server += ["-c", f"{name}={value}"]
        with _running(server, user, folder / ".s.PGSQL.5432", folder):
            _run(
                [_postgres_command("pg_isready"), "-q", "-h", str(folder), "-t", "60"], user,
                until_it_works=True,
            )  # fmt: skip
            yield folder


@contextmanager
def mariadb() -> Generator[Path]:
    """Run a MariaDB server; its socket. Its user: `root`, its database: `test`."""
    server = needs.command("mariadbd", "mariadb-server-core")
    with _folder("maria") as (folder, user):
        data, socket = folder / "data", folder / "socket"
        # Without tables of its own, which a server does not need that knows no users.
        for made in (data, data / "test"):
            made.mkdir()
            if user is not None:
                shutil.chown(made, user)
        options = ["--no-defaults", f"--datadir={data}", "--skip-grant-tables"]
        limits = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"]
        command = [server, *options, f"--socket={socket}", "--skip-networking", *limits]
        with _running(command, user, socket, folder):
            yield socket


def sockets(folder: Path, driver: str, database: str = "postgres") -> str:
    """Return the address of a database of `postgres` for SQLAlchemy.

    Args:
        driver: `psycopg` (blocking and async) or `asyncpg`.
        database: `postgres`, or one that was made by `own_database`.
    """
    return f"postgresql+{driver}://postgres@/{database}?host={folder}"


@cache
def own_database(server: Path, name: str) -> str:
    """Make a database at the first call, for one module of tests; its name.

    Modules share the servers of a process, and run in any order. In one database, the table of one
    module would be taken for that of another.

    Args:
        server: what `postgres` or `mariadb` gave.
    """
    mariadb = f"mysql+pymysql://root@/test?unix_socket={server}"
    url = mariadb if server.is_socket() else sockets(server, "psycopg")
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as made:
        made.execute(text(f"CREATE DATABASE {name}"))
    return name


def _postgres_command(name: str) -> str:
    """Return a command of the server, which Debian keeps out of the way of its users."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else needs.command(name, "postgresql")


@contextmanager
def _folder(name: str) -> Generator[tuple[Path, str | None]]:
    """Make a folder, and say which user can run a server in it: none of them runs as root."""
    folder = Path(tempfile.mkdtemp(prefix=f"stephttp-{name}-", dir="/tmp"))
    user = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, user)
    try:
        yield folder, user
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(
    command: Sequence[str], user: str | None, ready: Path, folder: Path
) -> Generator[None]:
    log = folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=folder, user=user, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + _DEADLINE
        while not ready.exists():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _run(command: Sequence[str], user: str | None, *, until_it_works: bool = False) -> None:
    until = time.monotonic() + _DEADLINE
    while True:
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            command, user=user, cwd="/tmp", capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        text = f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        assert until_it_works, text
        assert time.monotonic() < until, text
        time.sleep(0.02)
