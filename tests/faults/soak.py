"""Load for a long time, with a kill a minute, and what grows meanwhile: `make soak MINUTES=30`."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import linear_regression
from typing import Any

from tests.faults.judge import Verdict, judge
from tests.faults.runner import Caller, new_client
from tests.faults.schedules import schedule
from tests.faults.world import Server, World

_SAMPLE = 5.0
"""Seconds between two looks."""
_LONG = 120.0
"""Seconds after which the second half of a life says something by itself."""
_PATIENCE = 120.0
"""Seconds after the end within which all callers have their answers."""
_KILLS = {
    "kill engine": "engine", "kill worker": "app", "kill app": "app",
    "terminate engine": "engine", "terminate app": "app",
}  # fmt: skip
"""By what is done, to whom."""


@dataclass(frozen=True)
class Sample:
    """What a server holds at a moment; of all its processes together."""

    at: float
    whose: str
    pids: tuple[int, ...]
    resident: int
    descriptors: int
    threads: int


def sample(server: Server, at: float) -> Sample:
    """Look at the processes of a server."""
    resident = descriptors = threads = 0
    pids = tuple(sorted(server.all()))
    for pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            resident += pages * os.sysconf("SC_PAGE_SIZE")
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            threads += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            pass  # It was killed just now.
    return Sample(at, server.name, pids, resident, descriptors, threads)


class Soak:
    """A world under load."""

    def __init__(
        self, world: World, app: str, seed: int, idle: float, spared: Sequence[str]
    ) -> None:
        self.world, self.app, self.idle = world, app, idle
        self.kills = [kill for kill in _KILLS if _KILLS[kill] not in spared]
        self.rng = Random(seed)
        self.seed = seed
        self.samples: list[Sample] = []
        self.sizes: list[tuple[float, int, int]] = []
        self.sent = 0
        self._labels: list[tuple[str, bool, bool]] = []
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, minutes: float) -> Verdict:
        """Keep the machine busy for so long, wait for all answers, and judge them."""
        await self.world.use(self.app)
        begun = time.monotonic()
        end = begun + minutes * 60
        caller = Caller(self.world)
        caller.deadline = end + _PATIENCE
        async with new_client(60) as caller.client:
            others = [asyncio.create_task(self._watch(begun)), asyncio.create_task(self._kill(end))]
            busy = _busy()
            while time.monotonic() < end:
                await self._send_some(caller)
                await asyncio.sleep(0.25)
                busy, before = _busy(), busy
                idle, total = busy[0] - before[0], busy[1] - before[1]
                # Few or many, so that a part of the machine stays idle.
                if total and idle / total < self.idle:
                    await asyncio.sleep(0.5)
            await others[1]
            caller.deadline = time.monotonic() + _PATIENCE
            await asyncio.gather(*self._open)
            left = await caller.open_runs()
            others[0].cancel()
        keyed = {label for label, has_key, _ in self._labels if has_key}
        unknown = {label for label, has_key, known in self._labels if has_key and not known}
        verdict = judge(self.world.ledger.entries(), keyed, unknown)
        verdict.lost += [f"run {run} of the engine has not ended" for run in left]
        return verdict

    async def _send_some(self, caller: Caller) -> None:
        if len(self._open) > 200:
            return
        plan = schedule(self.seed * 1_000_000 + self.sent, requests=4, span=0.25)
        self.sent += 1
        now = time.monotonic()
        for request in plan.requests:
            known = request.authorization is not None
            self._labels.append((request.label, request.key is not None, known))
            self._keep(caller.ask(request, now + request.at))
            if request.event_at is not None:
                self._keep(caller.send_event(request, now + request.event_at))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _kill(self, end: float) -> None:
        while self.kills and time.monotonic() + 60 < end:
            await asyncio.sleep(60)
            await self.world.suffer(self.rng.choice(self.kills), 1.0)

    async def _watch(self, begun: float) -> None:
        while True:
            at = time.monotonic() - begun
            for server in (self.world.engine, self.world.app):
                if server is not None and server.process is not None:
                    self.samples.append(sample(server, at))
            file = self.world.directory / "runs.db"
            wal = file.with_name("runs.db-wal")
            self.sizes.append((at, file.stat().st_size, wal.stat().st_size if wal.exists() else 0))
            await asyncio.sleep(_SAMPLE)

    def report(self) -> list[str]:
        """Return what grew, for each life of a server's processes; its start is left out.

        The second half of a long life counts: until then, caches fill.
        """
        lines = []
        lives: dict[tuple[str, tuple[int, ...]], list[Sample]] = {}
        for one in self.samples:
            lives.setdefault((one.whose, one.pids), []).append(one)
        for (whose, _), life in lives.items():
            warm = [one for one in life if one.at >= life[0].at + 20]
            if len(warm) < 3:
                continue
            lines.append(f"{whose:10} {_minutes(life)}: {_held(warm)}")
            late = warm[len(warm) // 2 :]
            if late[-1].at - late[0].at > _LONG:
                lines.append(f"{'':10} {_minutes(late)}: {_held(late)}")
        end, size, wal = self.sizes[-1]
        lines.append(
            f"database: {size / 2**20:.1f} MiB and {wal / 2**20:.1f} MiB of log after "
            f"{end / 60:.1f} min, {size / max(1, len(self._labels)):.0f} bytes a request"
        )
        return lines


def _minutes(life: Sequence[Sample]) -> str:
    return f"{life[0].at / 60:5.1f} to {life[-1].at / 60:5.1f} min"


def _held(life: Sequence[Sample]) -> str:
    """Return what a server held at last, and how much more it became in a minute."""
    at, last = [one.at / 60 for one in life], life[-1]
    memory, _ = linear_regression(at, [one.resident / 2**20 for one in life])
    files, _ = linear_regression(at, [one.descriptors for one in life])
    threads, _ = linear_regression(at, [one.threads for one in life])
    return (
        f"{last.resident / 2**20:.0f} MiB ({memory:+.2f} MiB/min), "
        f"{last.descriptors} descriptors ({files:+.2f}/min), "
        f"{last.threads} threads ({threads:+.2f}/min)"
    )


def _busy() -> tuple[int, int]:
    """Return the ticks of the machine's processors: idle, and all."""
    ticks = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


async def soak(minutes: float, app: str, seed: int, idle: float, spared: Sequence[str]) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    directory = Path(tempfile.mkdtemp(prefix="stephttp-soak-"))
    async with World(directory) as world:
        work = Soak(world, app, seed, idle, spared)
        verdict = await work.run(minutes)
        for line in work.report():
            print(line, flush=True)
    print(verdict.figures())
    for one in verdict.broken[:20]:
        print(f"BROKEN {one}")
    if verdict.broken:
        print(f"ledger, database and logs: {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if verdict.broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--app", default="uvicorn-2", help="uvicorn-1, uvicorn-2 or gunicorn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--idle", type=float, default=0.2, help="share of the machine left idle")
    parser.add_argument(
        "--spare", action="append", choices=["engine", "app"], default=[],
        help="kill only the other one, to see what grows in a long life",
    )  # fmt: skip
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.minutes:g} minutes, {given.app}", flush=True)
    return asyncio.run(soak(given.minutes, given.app, given.seed, given.idle, given.spare))


if __name__ == "__main__":
    sys.exit(main())
