"""What people read (tables, colours on a terminal) and what programs read (JSON)."""

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
"""Columns where nobody looks: a pipe gets whole lines."""

STATES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "ok": "green",
    "warning": "yellow",
    "error": "red",
    "skipped": "dim",
}
"""How words for states look."""


def console(*, stderr: bool = False) -> Console:
    """A console; without colours and cut lines if it is no terminal. `NO_COLOR` is obeyed."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """A document for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def print_line(value: Any) -> None:
    """One document of many, a line each."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table, or only its headings."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        # What identifies something must not be cut.
        table.add_column(heading, no_wrap=heading in ("RUN", "EVENT", "STATE"), overflow="fold")
    for row in rows:
        table.add_row(*(clean(cell) if isinstance(cell, str) else cell for cell in row))
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    # Without the blanks that fill the last column.
    with out.capture() as captured:
        out.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def clean(text: str) -> str:
    """Without what would move the cursor or colour the terminal: others wrote it."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def state(word: str) -> Text:
    """A word for a state, in its colour."""
    return Text(word, style=STATES.get(word.lower(), ""))


def local_time(text: str | None) -> str:
    """A time of the API in the zone of whoever reads it."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(milliseconds: float | None) -> str:
    """A length of time, short."""
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
    """Bars for work that takes a while, on the terminal; nothing where there is none."""
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
