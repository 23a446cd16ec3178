"""Python programs that start in milliseconds: forks of a process that has imported what they need.

Importing takes longer than most tests. So the tests keep one process (of each worker) that has
imported the engine and the usual servers, and does nothing else. It forks for each program, which
has an id, a group, streams, an environment, signals and an exit code of its own, like any other.

What wants an interpreter of its own (variables that Python or the dynamic loader read at their
start, another program) is started without this; see `fits`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

_IMPORTED = ("stephttp.cli", "stephttp.engine.app", "stephttp.asgi", "fastapi", "uvicorn.main")
"""Nothing whose mere presence changes what stephttp does, as that of a database's driver may."""
_OWN_INTERPRETER = ("PYTHON", "LD_", "COVERAGE_", "FAKETIME")
"""How variables begin that are read when an interpreter starts."""
_LARGEST = 1 << 20
"""Bytes of an order. An environment has a few thousand."""


def fits(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a program can be a fork: `python -m module` of the tests' own interpreter."""
    changed = {name for name, _ in env.items() ^ os.environ.items()}
    wants_its_own = any(name.startswith(_OWN_INTERPRETER) for name in changed)
    return list(command[:2]) == [sys.executable, "-m"] and not wants_its_own


class Fork:
    """A started program, with the part of `subprocess.Popen` that tests use.

    Args:
        command: `python -m module`, and the arguments.
        cwd: the directory in which it starts, and from which it imports.
        env: its whole environment.
    """

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        read_out, out = os.pipe()
        read_err, err = os.pipe()
        self._ended, ended = os.pipe()
        order = {"words": list(command[2:]), "cwd": str(cwd), "env": dict(env)}
        try:
            socket.send_fds(_nursery(), [json.dumps(order).encode()], [out, err, ended])
        finally:
            for handle in (out, err, ended):
                os.close(handle)
        self.stdout: IO[str] = open(read_out, encoding="utf-8")  # noqa: SIM115
        self.stderr: IO[str] = open(read_err, encoding="utf-8")  # noqa: SIM115
        self.pid = int(os.read(self._ended, 20).split()[0])

    def poll(self) -> int | None:
        """Return the exit code, or the negative number of the signal that ended it, if it ended."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self.returncode = int(os.read(self._ended, 20))
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for up to `timeout` seconds; the exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        if self.returncode is None:
            select.select([self._ended], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _nursery() -> socket.socket:
    """Start the process that forks; the socket that takes orders. It ends with this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for side in (ours, its):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(its.fileno())],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(orders: socket.socket) -> dict[str, Any] | None:
    """Fork for each order, and say how each fork ended. Returns the order in the fork, and `None`
    at the end."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, _noted)
    signal.set_wakeup_fd(woken)
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([orders.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 512)
            with contextlib.suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                    ended = children.pop(found[0])
                    with contextlib.suppress(BrokenPipeError):  # the test does not want to know
                        os.write(ended, b"%d" % os.waitstatus_to_exitcode(found[1]))
                    os.close(ended)
        if orders.fileno() not in ready:
            continue
        data, handles, _, _ = socket.recv_fds(orders, _LARGEST, 3)
        if not data:
            return None
        out, err, ended = handles
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            for handle in (out, err, ended, wake, woken, *children.values()):
                os.close(handle)
            orders.close()
            return dict(json.loads(data))
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so, or ended
            os.setpgid(child, child)
        children[child] = ended
        os.write(ended, b"%-20d" % child)
        os.close(out)
        os.close(err)


def _noted(number: int, frame: object) -> None:
    """Handle a signal by what `signal.set_wakeup_fd` does."""


def _become(order: dict[str, Any]) -> None:
    """Be the program of an order, as far as Python lets it."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    module, *words = order["words"]
    sys.argv = [module, *words]
    sys.path[0] = order["cwd"]
    importlib.invalidate_caches()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for imported in _IMPORTED:
        importlib.import_module(imported)
    gc.collect()
    # In the forks too: each would visit at its end all that it shares, and copy it (0.2 s).
    gc.freeze()
    received = _serve(socket.socket(fileno=int(sys.argv[1])))
    if received is not None:
        _become(received)
