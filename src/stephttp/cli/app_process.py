"""The process of your app beside `stephttp dev`: its start, its output, its end with Ctrl-C.

The command gets its own process group: Ctrl-C in the terminal then reaches only us, so that we can
stop things in order, and the processes that the command starts (a reloader's workers) are stopped
with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Self, TextIO

from stephttp.cli.terminal import mute, pass_lines

# Runs beside the app, and starts before it. Its standard input is a pipe that only we hold, so it
# notices our end however we end, even by SIGKILL. It reads the app's process group, and later
# "done", when the app no longer needs it.
_WATCHDOG = """
import os, signal, sys, time
group = sys.stdin.readline()
if group and sys.stdin.readline() != "done\\n":
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(int(group), number)
        except OSError:
            break
        time.sleep(float(sys.argv[1]))
"""


class AppProcess:
    """The app's process. Make it with `start`, and always end it with `stop`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        watchdog: subprocess.Popen[str],
        output_ended: asyncio.Future[None],
        grace: float,
    ) -> None:
        self._process = process
        self._exit = asyncio.create_task(process.wait())
        self._watchdog = watchdog
        self._output_ended = output_ended
        self._grace = grace

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        name: str,
        grace: float,
    ) -> Self:
        """Start `command`, and pass on its output with `name` before each line.

        Args:
            grace: seconds between SIGTERM and SIGKILL.

        Raises:
            OSError: the command cannot be started.
        """
        ours: list[IO[bytes]] = []
        theirs: list[int] = []
        watchdog = _start_watchdog(grace)
        try:
            for _ in range(2):
                read_end, write_end = os.pipe()
                # The thread that reads the pipe closes it.
                ours.append(os.fdopen(read_end, "rb"))
                theirs.append(write_end)
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=theirs[0],
                stderr=theirs[1],
                env=dict(env),
                process_group=0,
            )
            _send_line(watchdog, str(process.pid))
        except BaseException:
            watchdog.communicate()
            for pipe in ours:
                pipe.close()
            raise
        finally:
            for end in theirs:
                os.close(end)
        output_ended = _pass_through(ours, name)
        return cls(process, watchdog, output_ended, grace)

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait until the command ends; return its exit code, 128 + N after signal N."""
        code = await asyncio.shield(self._exit)
        return code if code >= 0 else 128 - code

    async def stop(self, hurry: asyncio.Future[None]) -> None:
        """End the group: SIGTERM, and SIGKILL when the grace period is over or `hurry` is done.

        Call it also when the command has ended: processes that it started may be left.
        """
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(self._grace):
                # The output ends when the last process of the group does: no need to poll.
                for end in (self._exit, self._output_ended):
                    await asyncio.wait({end, hurry}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            self._signal(signal.SIGKILL)
            await asyncio.wait({self._exit})
            _send_line(self._watchdog, "done")
            self._watchdog.communicate()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            # The group is empty (macOS raises the second one then).
            pass


def _start_watchdog(grace: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(grace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )


def _send_line(watchdog: subprocess.Popen[str], word: str) -> None:
    assert watchdog.stdin is not None
    try:
        watchdog.stdin.write(f"{word}\n")
        watchdog.stdin.flush()
    except BrokenPipeError:
        # The watchdog was killed. It is not needed as long as we end in order.
        pass


def _pass_through(pipes: Sequence[IO[bytes]], name: str) -> asyncio.Future[None]:
    """Pass on both streams in threads; the future is done when both have ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    left = len(pipes)

    def one_ended() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            ended.set_result(None)

    def pump(pipe: IO[bytes], target: TextIO) -> None:
        with pipe:
            try:
                pass_lines(pipe, target, name)
            except BrokenPipeError:
                mute(target)
                # Keep reading: a signal should end the app, not a broken pipe.
                pass_lines(pipe, target, name)
        call_in_loop(loop, one_ended)

    for pipe, target in zip(pipes, (sys.stdout, sys.stderr), strict=True):
        # Daemons: a process that left the group may hold its end of the pipe open forever.
        threading.Thread(target=pump, args=(pipe, target), daemon=True, name="output").start()
    return ended


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Let `loop` call `callback`; for threads that may outlive the loop."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        # The loop is closed: the command has ended.
        pass
