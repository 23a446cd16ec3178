"""Printing for people (tables, colours, local times) and for programs (`--json`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_WIDE = 100_000
"""Columns of a pipe: it gets whole lines."""

STATES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "ready": "green",
    "paused": "yellow",
    "refused": "red",
    "ok": "green",
    "warning": "yellow",
    "error": "red",
    "skipped": "dim",
}
"""Styles of words for states."""


def console(*, stderr: bool = False) -> Console:
    """Return a console. Without a terminal it cuts no lines and has no colours; see `NO_COLOR`."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print a document for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def print_line(value: Any) -> None:
    """Print one of several documents, one on each line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table; without rows, only its headings."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        # Ids must not be wrapped.
        table.add_column(heading, no_wrap=heading in ("RUN", "EVENT", "STATE"), overflow="fold")
    for row in rows:
        table.add_row(*(clean(cell) if isinstance(cell, str) else cell for cell in row))
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    # Remove the blanks that fill the last column.
    with out.capture() as captured:
        out.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def clean(text: str) -> str:
    """Return text without control characters: strangers wrote it, and it goes to a terminal."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def state(word: str) -> Text:
    """Return a word for a state, in its colour."""
    return Text(word, style=STATES.get(word.lower(), ""))


def local_time(text: str | None) -> str:
    """Write a time of the API in the user's time zone."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(milliseconds: float | None) -> str:
    """Write a length of time, in short form."""
    if milliseconds is None:
        return ""
    if milliseconds < 1_000:
        return f"{milliseconds:.3g} ms"
    seconds = milliseconds / 1_000
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    return " ".join(f"{count}{unit}" for count, unit in parts if count)


@contextmanager
def progress() -> Generator[Progress]:
    """Show progress bars on a terminal; do nothing without one."""
    target = console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=target,
        transient=True,
        disable=not target.is_terminal,
    ) as bars:
        yield bars
