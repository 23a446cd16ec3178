"""The messages of `dev` and `start` on the terminal (colours), and the app's output, which is
passed on.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from typing import IO, TextIO

_CYAN, _RED, _PLAIN = "\x1b[36m", "\x1b[31m", "\x1b[0m"

# A line is passed on whole, but one that never ends must not fill the memory.
_LONGEST_LINE = 1 << 20


def wants_colour(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal, and `NO_COLOR` is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def say(message: str, to: TextIO | None = None) -> None:
    """Print a message of the command."""
    target = to or sys.stdout
    try:
        print(f"stephttp: {message}", file=target, flush=True)
    except BrokenPipeError:
        mute(target)


def complain(message: str) -> None:
    """Print a message about something that went wrong."""
    say(message, sys.stderr)


def mute(stream: TextIO) -> None:
    """Discard what is still written to `stream`, which has no reader any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def on_reader_gone(stream: TextIO, callback: Callable[[], None]) -> None:
    """Call `callback`, in a thread, when `stream` loses its reader, even if nothing is written."""
    poller = select.poll()
    # No event is requested: `poll` always reports errors and hang-ups. It polls a duplicate,
    # because it looks again at what woke it up, and `mute` may have replaced the stream by then.
    poller.register(os.dup(stream.fileno()), 0)

    def watch() -> None:
        poller.poll()
        callback()

    threading.Thread(target=watch, daemon=True, name="reader").start()


def pass_lines(source: IO[bytes], target: TextIO, name: str) -> None:
    """Copy `source` to `target`, with `name` before each line, until `source` ends.

    Blocks, so call it in a thread. A slow terminal then slows down the writer of `source`, as it
    would without us, and not the engine.

    Raises:
        BrokenPipeError: `target` has no reader any more.
    """
    colour = (_RED if target is sys.stderr else _CYAN) if wants_colour(target) else ""
    prefix = f"{colour}{name} |{_PLAIN if colour else ''} ".encode()
    while line := source.readline(_LONGEST_LINE):
        # One write a line, so that lines of two streams do not mix.
        target.buffer.write(prefix + line.removesuffix(b"\n") + b"\n")
        target.buffer.flush()
