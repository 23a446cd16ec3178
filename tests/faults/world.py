"""A world: an engine on a file, applications, and the proxies between them and their callers.

    caller -> [callers] -> application -> [api] -> engine -> [calls] -> application

Each runs as in production: `stephttp start` with keys, uvicorn with one worker and with two,
gunicorn with two. The engine's disk and the clock of engine and applications can be made to fail.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import httpx2

from tests.acceptance.processes import ROOT, STEPHTTP, free_port, inherited
from tests.faults.ledger import Ledger
from tests.faults.machine import Machine
from tests.faults.proxy import Message, Proxy
from tests.faults.schedules import Schedule

SIGNING_KEY = "signkey-test-" + "5e" * 32
EVENT_KEY = "event-key-of-the-faults"
READY = 60.0
"""Seconds within which a process that starts is ready, on a machine that is busy."""
_NONCE = re.compile(rb"N[0-9a-f]{32}")

_UVICORN = (*STEPHTTP[:-1], "uvicorn", "tests.faults.app_fastapi:app", "--log-level", "warning")
_GUNICORN = (*STEPHTTP[:-1], "gunicorn", "tests.faults.app_flask:app", "--log-level", "warning")
COMMANDS: dict[str, Sequence[str]] = {
    "uvicorn-1": _UVICORN,
    "uvicorn-2": (*_UVICORN, "--workers", "2"),
    "gunicorn": (*_GUNICORN, "--workers", "2", "--threads", "16"),
}


class Server:
    """A server process on a port of its own for all its lives."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path
    ) -> None:
        self.name, self.port = name, free_port()
        self._command = list(command)
        self._env = {**inherited(), **env}
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start it, in a session of its own; see `ready`."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    async def ready(self, path: str) -> None:
        """Return once it answers.

        Raises:
            AssertionError: it ended, or takes too long.
        """
        assert self.process is not None
        deadline = time.monotonic() + READY
        async with httpx2.AsyncClient(timeout=5) as client:
            while True:
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}{path}")).status_code < 500:
                        return
                except httpx2.TransportError:
                    pass
                assert self.process.poll() is None, f"{self.name} ended: {self.said()}"
                assert time.monotonic() < deadline, f"{self.name} does not answer: {self.said()}"
                await asyncio.sleep(0.05)

    def workers(self) -> list[int]:
        """Return the processes that serve: its children, or itself without any."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        found = [int(one) for one in children.read_text().split()] if children.exists() else []
        # Of uvicorn's children one only keeps track of what they share.
        serving = [one for one in found if b"resource_tracker" not in _command_line(one)]
        return serving or [pid]

    def all(self) -> list[int]:
        """Return all its processes that live."""
        assert self.process is not None
        return list({self.process.pid, *self.workers()})

    @property
    def reloads(self) -> bool:
        """Whether it replaces its workers when it is asked to."""
        return "--workers" in self._command

    def reload(self) -> None:
        """Ask it to replace its workers, without losing a request."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        if self.process is not None and self.process.poll() is None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it: at once by SIGKILL, or by asking its main process, and then at once."""
        if self.process is None:
            return
        if number is not signal.SIGKILL and self.process.poll() is None:
            self.process.send_signal(number)
            for _ in range(200):
                if self.process.poll() is not None:
                    break
                await asyncio.sleep(0.05)
        self.tell(signal.SIGCONT)
        self.tell(signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        """Return the end of what it said."""
        return self._log.read_text(errors="replace")[-4000:]


class World:
    """An engine, its applications and the proxies; an async context manager.

    Args:
        directory: an empty folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = Ledger(directory / "ledger")
        self.machine = Machine(directory)
        common = {
            "INNGEST_SIGNING_KEY": SIGNING_KEY,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",  # also of a tree apart
            "FAULTS_WORLD": str(directory),
            **self.machine.env,
        }
        self.engine = Server(
            "engine",
            [*STEPHTTP, "start", "--db", str(directory / "runs.db"), "--allow-host", "127.0.0.1",
             "--retry-delay", "100ms", "--retry-max-delay", "1s", "--rate-limit", "0",
             # More than all jumps of the clock together: an event may come before its request.
             "--grace", "2s", "--event-lookback", "86400"],
            common,
            directory / "engine.log",
        )  # fmt: skip
        self.engine._command += ["--port", str(self.engine.port)]
        self.api = Proxy(self.engine.port, self._passed)
        self.calls, self.callers = Proxy(0), Proxy(0)
        self._common = common
        self._apps: dict[str, Server] = {}
        self.app: Server | None = None

    async def __aenter__(self) -> World:
        for proxy in (self.api, self.calls, self.callers):
            await proxy.start()
        (self.directory / "origin").write_text(f"http://127.0.0.1:{self.calls.port}")
        self.engine.spawn()
        await self.engine.ready("/health")
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in (*self._apps.values(), self.engine):
            await server.end()
        for proxy in (self.api, self.calls, self.callers):
            await proxy.stop()
        self.ledger.close()

    async def use(self, name: str) -> Server:
        """Let this application be the one that is called; it is started if it does not run."""
        if self.app is not None and self.app.name != name:
            await self.app.end(signal.SIGTERM)
        if name not in self._apps:
            env = {
                **self._common,
                "INNGEST_BASE_URL": f"http://127.0.0.1:{self.api.port}",
            }
            server = Server(name, COMMANDS[name], env, self.directory / f"{name}.log")
            place = f"127.0.0.1:{server.port}"
            server._command += (
                ["--bind", place] if name == "gunicorn" else ["--port", str(server.port)]
            )
            self._apps[name] = server
        self.app = server = self._apps[name]
        if server.process is None or server.process.poll() is not None:
            server.spawn()
            await server.ready("/up")
        self.calls.target = self.callers.target = server.port
        return server

    def begin(self, plan: Schedule) -> None:
        """Let the proxies do what a schedule says."""
        for name, rate in plan.rates.items():
            proxy: Proxy = getattr(self, name)
            # A request that is corrupt as it arrives is another request, with the same key.
            spared = "corrupt-request" if name == "callers" else ""
            proxy.faults = [fault for fault in plan.faults if fault != spared]
            proxy.rng, proxy.rate = Random(f"{plan.seed} {name}"), rate

    async def suffer(self, what: str, seconds: float) -> None:
        """Do one of `PROCESS_FAULTS`, and mend it after so many seconds."""
        verb, _, whom = what.partition(" ")
        if verb == "disk":
            self.machine.disk = whom
            await asyncio.sleep(seconds)
            self.machine.disk = "sound"
        elif verb == "clock":
            self.machine.ahead += 1200
        elif verb == "partition":
            proxy: Proxy = getattr(self, whom)
            proxy.parted = True
            await asyncio.sleep(seconds)
            proxy.parted = False
        elif whom == "worker":
            await self._hurt_worker(verb, seconds)
        elif verb == "reload" and self.app is not None and self.app.reloads:
            self.app.reload()
            await asyncio.sleep(seconds)
        else:
            server = self.engine if whom == "engine" else self.app
            assert server is not None
            if verb == "stop":
                server.tell(signal.SIGSTOP)
                await asyncio.sleep(seconds)
                server.tell(signal.SIGCONT)
            else:
                # One without workers is reloaded by its end.
                await server.end(signal.SIGKILL if verb == "kill" else signal.SIGTERM)
                await asyncio.sleep(seconds / 2)
                if server.process is not None and server.process.poll() is not None:
                    server.spawn()
        await self.alive()

    async def _hurt_worker(self, verb: str, seconds: float) -> None:
        assert self.app is not None
        worker = self.app.workers()[-1]
        try:
            if verb == "stop":
                os.kill(worker, signal.SIGSTOP)
                await asyncio.sleep(seconds)
                os.kill(worker, signal.SIGCONT)
            else:
                os.kill(worker, signal.SIGKILL if verb == "kill" else signal.SIGTERM)
                await asyncio.sleep(seconds)
        except ProcessLookupError:
            pass  # Another fault ended it.

    async def heal(self) -> None:
        """End all faults, and return once engine and application answer."""
        self.machine.disk = "sound"
        for proxy in (self.api, self.calls, self.callers):
            proxy.faults, proxy.parted = (), False
        await self.alive()

    async def alive(self) -> None:
        """Start what does not run, and return once it answers."""
        for server, path in ((self.engine, "/health"), (self.app, "/up")):
            if server is None:
                continue
            if server.process is None or server.process.poll() is not None:
                server.spawn()
            try:
                await server.ready(path)
            except AssertionError:
                if server.process is not None and server.process.poll() is None:
                    raise
                # It ended as it started: its disk was full, say. It is started again.
                await asyncio.sleep(0.2)
                await self.alive()

    def _passed(self, request: Message, answer: Message) -> None:
        """Note what the engine acknowledged."""
        if answer.status >= 300 or b"x-stephttp-features" not in answer.head.lower():
            return
        refused = b'"error":"' in answer.body.replace(b'"error":""', b"")
        if b"/batch " in request.head.split(b"\r\n", 1)[0] and refused:
            return  # Which of them were refused is not worth finding out.
        nonces = [one.decode() for one in _NONCE.findall(request.body)]
        if nonces:
            self.ledger.write("ack", nonces=nonces)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
