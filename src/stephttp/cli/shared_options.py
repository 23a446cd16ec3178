"""Options that several commands share (`--url`, `--json`), times and JSON in arguments, and
how errors end a command.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Concatenate, TypeVar, cast, get_type_hints

import typer

from stephttp._wire.durations import parse_duration
from stephttp.cli.ca_file import CaFile
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote
from stephttp.cli.target import Target
from stephttp.cli.terminal import complain

T = TypeVar("T")

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The engine. Or INNGEST_BASE_URL, or INNGEST_DEV.  [default: http://127.0.0.1:8288]",
        show_default=False,
    ),
]
SigningKey = Annotated[
    str | None,
    typer.Option(
        "--signing-key",
        metavar="KEY",
        help="Others on this machine can see it: prefer INNGEST_SIGNING_KEY (and "
        "INNGEST_SIGNING_KEY_FALLBACK) or a file.",
        show_default=False,
    ),
]
SigningKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--signing-key-file",
        dir_okay=False,
        help="File with one signing key a line.",
        show_default=False,
    ),
]
EventKey = Annotated[
    str | None,
    typer.Option(
        "--event-key",
        metavar="KEY",
        help="Others on this machine can see it: prefer INNGEST_EVENT_KEY or a file.",
        show_default=False,
    ),
]
EventKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--event-key-file", dir_okay=False, help="File with an event key.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Data = Annotated[
    str, typer.Option(metavar="JSON", help="Its data; @FILE reads a file, - standard input.")
]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Print at most this many.")]
Endpoints = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="NAME", help="Only runs of this endpoint; may be repeated."),
]
After = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Only those after this time: 2026-01-31T12:00, or as an age: 30m, 2h, 7d.",
        show_default=False,
    ),
]
Before = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only those before this time.", show_default=False),
]


@dataclass(frozen=True, kw_only=True, repr=False)
class EngineOptions:
    """Which engine a command speaks with, and with which keys."""

    url: Url = None
    signing_key: SigningKey = None
    signing_key_file: SigningKeyFile = None
    ca_file: CaFile = None

    def target(self) -> Target:
        """Return the engine.

        Raises:
            RemoteError: see `Target.find`.
        """
        return Target.find(self.url, self.signing_key, self.signing_key_file, ca_file=self.ca_file)

    @contextmanager
    def open(self) -> Generator[Remote]:
        """Open the API of the engine; errors end the command."""
        with exit_on_error(), Remote(self.target()) as engine:
            yield engine


@dataclass(frozen=True, kw_only=True, repr=False)
class SenderOptions(EngineOptions):
    """The same, with keys for events."""

    event_key: EventKey = None
    event_key_file: EventKeyFile = None

    def target(self) -> Target:
        """See `EngineOptions.target`."""
        return Target.find(
            self.url,
            self.signing_key,
            self.signing_key_file,
            self.event_key,
            self.event_key_file,
            self.ca_file,
        )


def options_from(
    options: type[T],
) -> Callable[[Callable[Concatenate[T, ...], None]], Callable[..., None]]:
    """Return a decorator that makes a command: the fields of `options` are parameters of it.

    The function gets them as its first argument. Its other parameters come before them.

    Args:
        options: a dataclass whose fields are annotated like the parameters of a command.
    """
    added = fields(cast(Any, options))

    def decorate(function: Callable[Concatenate[T, ...], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            chosen = {field.name: given.pop(field.name) for field in added}
            function(options(**chosen), **given)

        hints = get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()
        hints |= get_type_hints(options, include_extras=True)
        defaults = {one.name: one.default for one in own} | {
            one.name: inspect.Parameter.empty if one.default is MISSING else one.default
            for one in added
        }
        # typer reads the parameters from the signature.
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name]
                )
                for name, default in defaults.items()
            ]
        )
        command.__annotations__ = {}
        return command

    return decorate


@contextmanager
def exit_on_error() -> Generator[None]:
    """Print an error, and end the command with its exit code."""
    try:
        yield
    except RemoteError as error:
        complain(str(error))
        raise typer.Exit(error.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def parse_time(text: str | None, option: str) -> str | None:
    """Return a time for the API, from a time or from how long ago it was.

    Raises:
        RemoteError: the text is neither.
    """
    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        return (now - parse_duration(text)).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        # Without a zone, the time is in the user's own.
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        message = (
            f"{option}: {text!r} is neither a time such as 2026-01-31T12:00 nor one such as 2h"
        )
        raise RemoteError(message, Exit.USAGE) from None


def read_json(text: str, option: str) -> Any:
    """Read JSON from the command line itself, from a file (`@`), or from standard input (`-`).

    Raises:
        RemoteError: this is not JSON, or cannot be read.
    """
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise RemoteError(f"{option}: {error}", Exit.USAGE) from None
    except ValueError as error:
        raise RemoteError(f"{option}: not JSON: {error}", Exit.USAGE) from None
