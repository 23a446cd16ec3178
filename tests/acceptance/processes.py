"""Real processes for the acceptance tests: started, read line by line, always ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import IO, Self, TypeVar

from tests.acceptance import warm

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent.parent
STEPHTTP = (sys.executable, "-m", "stephttp")

# Nothing here takes this long unless it is broken.
DEADLINE = 60.0


class Process:
    """A program with its own process group, so that a test that fails leaves nothing behind.

    `out` and `err` hold what it said so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self._news: Queue[None] = Queue()
        self._silent = 0
        environment = {**inherited(), **(env or {})}
        self.process = (
            warm.Fork(command, cwd, environment)
            if warm.fits(command, environment)
            else subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,
            )
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in (
                (self.process.stdout, self.out),
                (self.process.stderr, self.err),
            )
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has ended just now
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for reader in self._readers:
            # An app that outlived its group would keep a reader; the tests look for those.
            reader.join(timeout=1)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line, of either stream, that contains `pattern`; waits until it is there."""
        deadline = time.monotonic() + DEADLINE
        while True:
            for line in [*self.out, *self.err]:
                if found := re.search(pattern, line):
                    return found
            try:
                if self._silent == len(self._readers):
                    raise Empty
                self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                code = self.process.poll()
                state = "it runs" if code is None else f"it ended with {code}"
                raise AssertionError(
                    f"no line with {pattern!r} ({state}) in:\n{self.said()}"
                ) from None

    def wait(self) -> int:
        """Wait for its end, and until all it said was read; the exit code."""
        code = self.process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return code

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def said(self) -> str:
        return "\n".join(["stdout:", *self.out, "stderr:", *self.err])

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                self._news.put(None)
        self._silent += 1
        self._news.put(None)


class Lifeline:
    """Tells when the last process that holds it has ended, whoever that is.

    Processes take hold of it by opening `path`, a named pipe, for writing.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lifeline"
        os.mkfifo(self.path)
        # Without waiting for a writer.
        self._end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def wait_until_released(self) -> None:
        """Wait for the end of all that hold it; each must have taken hold before."""
        ended = threading.Event()

        def read() -> None:
            os.set_blocking(self._end, True)
            while os.read(self._end, 1):
                pass
            ended.set()
            os.close(self._end)

        threading.Thread(target=read, daemon=True).start()
        assert ended.wait(DEADLINE), "a process is still alive"


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Generator[str]:
    """An HTTP server on a thread of this process; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def eventually(look: Callable[[], T]) -> T:
    """What `look` returns, once that is something: what happens in the background has happened."""
    deadline = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r}"
        time.sleep(0.02)
    return found


_reserved: list[socket.socket] = []


def free_port() -> int:
    """Return a port for a server that needs to know it before it starts, or starts again.

    It is bound here until this process ends, but not listened on: the kernel gives it to nobody
    who asks for any port, and servers, which set SO_REUSEADDR, can have it.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    _reserved.append(reserved)
    port: int = reserved.getsockname()[1]
    return port


def inherited() -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("INNGEST_")},
        "NO_COLOR": "1",
    }
