"""The parts of a bench: programs that are started again when they have died, and a proxy that waits
for an engine that starts."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.processes import STEPHTTP, Process
from tests.faults.proxy import Message, Proxy

PATIENCE = 120.0
"""Seconds within which all has ended, whatever was killed: an engine that starts leaves runs to
the holders of their leases for a minute."""
_KILLING = (*STEPHTTP[:-1], "tests.faults.boundaries.killing")


class PatientProxy(Proxy):
    """A proxy that waits for an engine that is being started, as a socket of systemd's does."""

    async def _forward(self, request: Message) -> Message:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await super()._forward(request)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)


class Program:
    """A program with its arguments; `keep` starts it whenever it does not run."""

    def __init__(self, words: Sequence[str], env: dict[str, str]) -> None:
        self._words, self._env = [*_KILLING, *words], env
        self.process: Process | None = None
        self.lives = 0

    def keep(self) -> None:
        if self.process is None or self.process.process.poll() is not None:
            self.end()
            self.process = Process(self._words, env=self._env)
            self.lives += 1

    def kill(self) -> None:
        """Kill all of its processes that serve: a master lives on, and makes others."""
        assert self.process is not None
        pid = self.process.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in children or [str(pid)]:
            os.kill(int(one), signal.SIGKILL)

    def end(self) -> None:
        if self.process is not None:
            self.process.__exit__(None, None, None)
