"""`stephttp check`: loads the application, replays unfinished runs against it, and lists what
it found.
"""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.text import Text

from stephttp.cli import printing
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.history_sources import Histories
from stephttp.cli.printing import clean
from stephttp.cli.terminal import complain
from stephttp.errors import ConfigurationError, UsageError
from stephttp.testing.findings import Finding
from stephttp.testing.history import History
from stephttp.testing.places_in_code import place_of
from stephttp.testing.replay import Replayer
from stephttp.testing.verdicts import Replay, unchecked

_STATES = ("safe", "diverges", "unchecked")


def run_check(
    histories: Histories,
    app: str,
    endpoints: Iterable[str],
    *,
    lifespan: bool = True,
    as_json: bool = False,
) -> int:
    """Replay the unfinished runs, print what was found, and return the exit code.

    Args:
        histories: where the runs are.
        app: the application, as `module:name`.
        endpoints: only the runs of these; without any, all.
        lifespan: whether the application is started.
        as_json: whether JSON is printed.

    Raises:
        RemoteError: the application or the runs cannot be read.
    """
    run_ids = histories.unfinished(endpoints)
    try:
        replays = _replays(histories, run_ids, imported(app), lifespan=lifespan)
    except (ConfigurationError, UsageError) as error:
        raise RemoteError(f"--app: {error}", Exit.USAGE) from None
    if as_json:
        printing.print_json(_document(replays))
    else:
        _print(replays)
    states = set(map(_state, replays))
    return 1 if "diverges" in states else 2 if "unchecked" in states else 0


def imported(app: str) -> Any:
    """Return the application that is named as `module:name`.

    Raises:
        RemoteError: there is no such one, or importing it fails.
    """
    module, colon, names = app.partition(":")
    if not (module and colon and names):
        raise RemoteError(f"--app: {app!r} is not MODULE:NAME, such as shop:app", Exit.USAGE)
    if "" not in sys.path:
        sys.path.insert(0, "")  # as servers do
    try:
        found = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except Exception as error:
        place = place_of(error.__traceback__)
        at = f" ({place.file}:{place.line})" if place.line else ""
        said = f"--app: {app} cannot be imported: {_shown(error)}{at}"
        raise RemoteError(said, Exit.USAGE) from None
    return found


def _replays(
    histories: Histories, run_ids: Sequence[str], app: Any, *, lifespan: bool
) -> list[Replay]:
    done: list[Replay] = []
    with printing.progress() as bars, _Quiet(), _started(app, lifespan=lifespan) as replayer:
        task = bars.add_task(f"replaying {len(run_ids)} runs", total=len(run_ids))
        for run_id in run_ids:
            history = _history(histories, run_id)
            if history is not None:
                done.append(_replay(replayer, history))
            bars.advance(task)
    return done


@contextmanager
def _started(app: Any, *, lifespan: bool) -> Generator[Replayer]:
    """Start the application, and end it.

    Raises:
        RemoteError: it raises an exception at that.
    """
    replayer = Replayer(app, lifespan=lifespan, for_good=True)
    try:
        replayer.__enter__()
    except Exception as error:
        raise RemoteError(f"--app: it cannot be started: {_shown(error)}", Exit.USAGE) from None
    try:
        yield replayer
    finally:
        with suppress(Exception):  # what was found counts
            replayer.__exit__(None, None, None)


def _shown(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _history(histories: Histories, run_id: str) -> History | None:
    """Return the history of a run; `None` if it has ended or gone meanwhile."""
    try:
        history = histories.history(run_id)
    except RemoteError as error:
        if error.code is not Exit.FAILED:
            raise
        complain(f"run {run_id}: {error}")
        return None
    return None if history.ended else history


def _replay(replayer: Replayer, history: History) -> Replay:
    try:
        return replayer.replay(history)
    except Exception as error:  # of one run, which says nothing of the others
        return unchecked(history, _shown(error))


def _state(replay: Replay) -> str:
    if replay.unchecked:
        return "unchecked"
    return "diverges" if replay.findings else "safe"


def _document(replays: Sequence[Replay]) -> dict[str, Any]:
    counts = Counter(map(_state, replays))
    return {
        "ok": counts["safe"] == len(replays),
        **{state: counts[state] for state in _STATES},
        "runs": [
            {
                "run_id": one.run_id,
                "endpoint": one.endpoint,
                "state": _state(one),
                "reason": one.unchecked or None,
                "findings": [_finding(found) for found in one.findings],
            }
            for one in replays
        ],
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "step": found.step or None,
        "tool": found.tool or None,
        "file": found.file or None,
        "line": found.line or None,
        "message": found.message,
    }


_STYLES = {"safe": "green", "diverges": "red", "unchecked": "yellow"}


def _print(replays: Sequence[Replay]) -> None:
    rows = [
        (one.run_id, one.endpoint, Text(_state(one), _STYLES[_state(one)]), _what(one))
        for one in replays
        if not one.safe
    ]
    if rows:
        printing.print_table(("RUN", "ENDPOINT", "STATE", "WHAT"), rows)
    counts = Counter(map(_state, replays))
    parts = [f"{counts['safe']} safe", f"{counts['diverges']} diverge"]
    if counts["unchecked"]:
        parts.append(f"{counts['unchecked']} could not be checked")
    print(f"{len(replays)} unfinished runs: {', '.join(parts)}")


def _what(replay: Replay) -> str:
    return clean(replay.unchecked or "; ".join(map(str, replay.findings)))


class _Quiet:
    """Keeps what replays log off the terminal: it says of each run what the list says."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: Any) -> None:
        logging.disable(self._before)
