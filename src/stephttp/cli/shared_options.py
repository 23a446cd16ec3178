"""Options that several commands share, what they mean, and how errors end a command."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import typer

from stephttp._wire.durations import parse_duration
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


def options_from(options: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Return a decorator that makes a command: the fields of `options` are its parameters.

    Args:
        options: a dataclass whose fields are annotated like the parameters of a command.
    """

    def decorate(function: Callable[[T], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            function(options(**given))

        hints = get_type_hints(options, include_extras=True)
        # typer reads the parameters from the signature.
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if field.default is MISSING else field.default,
                    annotation=hints[field.name],
                )
                for field in fields(cast(Any, options))
            ]
        )
        command.__annotations__ = {}
        return command

    return decorate


@contextmanager
def remote(
    url: str | None,
    signing_key: str | None,
    signing_key_file: Path | None,
    event_key: str | None = None,
    event_key_file: Path | None = None,
    *,
    ca_file: Path | None,
) -> Generator[Remote]:
    """Open the API of the engine that the options name; errors end the command."""
    with exit_on_error():
        target = Target.find(url, signing_key, signing_key_file, event_key, event_key_file, ca_file)
        with Remote(target) as one:
            yield one


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
