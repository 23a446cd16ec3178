"""`stephttp runs watch`: follows runs until they end."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from stephttp.cli import printing
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.printing import clean, console, duration, state
from stephttp.cli.remote import Remote

_CHANGES = "/v1/stephttp/changes"
_PAUSES = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between attempts to reconnect to an engine."""

_ENDED = ("completed", "failed", "cancelled")


def follow_run(engine: Remote, run_id: str, *, as_json: bool) -> Exit:
    """Show a run until it has ended.

    Raises:
        RemoteError: there is no such run, or the engine is away for too long.
    """
    # First, to find the key that is accepted, and to say at once that there is no such run.
    run = _load(engine, run_id)
    display = _display(as_json)
    with display:
        display.show(run)
        updates = _updates(engine, run_id)
        while run["state"] not in _ENDED:
            run = next(updates)
            display.show(run)
    return Exit.OK if run["state"] == "completed" else Exit.FAILED


def follow_all(engine: Remote, *, as_json: bool) -> None:
    """Show each run that changes, until the user stops the command."""
    engine.data("GET", "/v1/runs", params={"limit": 1})
    shown: dict[str, Any] = {}
    for run in _updates(engine):
        run_id, now = run["run_id"], (run["state"], run["steps"], run["attempt"])
        if shown.get(run_id) == now:
            continue
        shown[run_id] = now
        if run["state"] in _ENDED:
            del shown[run_id]
        if as_json:
            printing.print_line(run)
        else:
            console().print(_line(run))


def _updates(engine: Remote, only: str | None = None) -> Generator[dict[str, Any]]:
    """Yield runs that may have changed; or one run, whenever it may have changed or the stream was
    opened (again). If the connection to the engine breaks, try again."""
    tries = 0
    while True:
        try:
            with engine.stream(_CHANGES) as events:
                if only is not None:
                    yield _load(engine, only)
                tries = 0
                for name, changes in events:
                    if name != "changes":
                        continue
                    if only is None:
                        yield from _load_all(engine, changes["run_ids"])
                    elif only in changes["run_ids"] or changes["lost"]:
                        yield _load(engine, only)
            # The engine stops, or closes long streams; while it stops it still answers.
            time.sleep(_PAUSES[1])
        except RemoteError as error:
            if error.code is not Exit.UNREACHABLE or tries == len(_PAUSES):
                raise
            time.sleep(_PAUSES[tries])
            tries += 1


def _load_all(engine: Remote, run_ids: list[str]) -> Generator[dict[str, Any]]:
    for run_id in run_ids:
        try:
            run = _load(engine, run_id)
        except RemoteError as error:
            if error.code is not Exit.FAILED:
                raise
            continue  # It was deleted meanwhile.
        yield run


def _load(engine: Remote, run_id: str) -> dict[str, Any]:
    detail: dict[str, Any] = engine.data("GET", f"/v1/stephttp/runs/{run_id}")
    return detail


def _line(run: dict[str, Any]) -> Text:
    return Text.assemble(
        f"{run['run_id']}  ",
        state(f"{run['state']:<9}"),
        f"  {clean(run['function'])}  {_progress(run)}",
    )


def _progress(run: dict[str, Any]) -> str:
    count = run["steps"]
    parts = [f"{count} step" if count == 1 else f"{count} steps"]
    if run["waiting_for"]:
        wait = run["waiting_for"][0]
        if wait["kind"] != "resume":
            parts.append(clean("waits for " + " ".join(filter(None, (wait["kind"], wait["step"])))))
    if run["error"]:
        parts.append(clean(f"{run['error'].get('name')}: {run['error'].get('message')}"))
    elif run["last_error"] and run["state"] not in _ENDED:
        parts.append(clean(run["last_error"]))
    return ", ".join(parts)


class _Display:
    """Prints a run whenever its line changes."""

    def __init__(self) -> None:
        self._last: Any = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *details: object) -> None:
        pass

    def show(self, run: dict[str, Any]) -> None:
        """Print the run if its line has changed."""
        now = (run["state"], _progress(run))
        if now != self._last:
            self._last = now
            self._print(run)

    def _print(self, run: dict[str, Any]) -> None:
        console().print(_line(run))


class _JsonDisplay(_Display):
    def _print(self, run: dict[str, Any]) -> None:
        printing.print_line(run)


class _LiveDisplay(_Display):
    """Keeps finished steps on the screen, and below them a line that changes."""

    def __init__(self) -> None:
        super().__init__()
        self._live = Live(console=console(), refresh_per_second=8)
        self._printed: set[str] = set()

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *details: object) -> None:
        self._live.stop()

    def _print(self, run: dict[str, Any]) -> None:
        for step in run["step_list"]:
            if step["state"] != "waiting" and step["step_id"] not in self._printed:
                self._printed.add(step["step_id"])
                title = step["id"] or step["name"] or step["step_id"]
                took = duration(step["duration_ms"])
                line = Text.assemble("  ", state(step["state"]), f" {clean(title)} {took}")
                self._live.console.print(line)
        line = _line(run)
        self._live.update(line if run["state"] in _ENDED else Spinner("dots", text=line))


def _display(as_json: bool) -> _Display:
    if as_json:
        return _JsonDisplay()
    return _LiveDisplay() if console().is_terminal else _Display()
