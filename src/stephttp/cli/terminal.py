"""What the command says for itself, and how it passes on what the app says."""

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
    """Whether `stream` is a terminal whose owner has not asked for plain text."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def say(message: str, to: TextIO | None = None) -> None:
    """One line of the command's own."""
    target = to or sys.stdout
    try:
        print(f"stephttp: {message}", file=target, flush=True)
    except BrokenPipeError:
        mute(target)


def complain(message: str) -> None:
    """One line about something that went wrong."""
    say(message, sys.stderr)


def mute(stream: TextIO) -> None:
    """Nobody reads `stream` any more: let what is still written to it go nowhere, in silence."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def on_reader_gone(stream: TextIO, tell: Callable[[], None]) -> None:
    """Call `tell`, in a thread, when nobody reads `stream` any more, even if nothing is written."""
    poller = select.poll()
    # No event is asked for: errors and hang-ups are always reported. Of our own descriptor, because
    # `poll` looks again at what it woke up for, and `mute` may have replaced the stream's by then.
    poller.register(os.dup(stream.fileno()), 0)

    def watch() -> None:
        poller.poll()
        tell()

    threading.Thread(target=watch, daemon=True, name="reader").start()


def pass_lines(source: IO[bytes], target: TextIO, name: str) -> None:
    """Copy `source` to `target`, each line behind `name`, until nobody can write to it any more.

    Blocks, so call it in a thread. A slow terminal then slows down whoever writes `source`, as it
    would without us, and not the engine.

    Raises:
        BrokenPipeError: nobody reads `target` any more.
    """
    colour = (_RED if target is sys.stderr else _CYAN) if wants_colour(target) else ""
    prefix = f"{colour}{name} |{_PLAIN if colour else ''} ".encode()
    while line := source.readline(_LONGEST_LINE):
        # One write a line, so that lines of two streams do not mix.
        target.buffer.write(prefix + line.removesuffix(b"\n") + b"\n")
        target.buffer.flush()
