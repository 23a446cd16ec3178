"""The command line itself: names, options, help. What the commands do is elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from stephttp._version import __version__
from stephttp.cli.dev import DevOptions, run_dev

app = typer.Typer(name="stephttp", no_args_is_help=True, add_completion=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stephttp {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Durable HTTP endpoints for Python."""


# Options of the app's command are its own: they are not ours, even without `--` before it.
@app.command(context_settings={"allow_interspersed_args": False})
def dev(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND...]",
            help="Starts the app as well, with INNGEST_DEV set; ends with it.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port to listen on; 0 takes any free one.  [default: 8288, or the next free one]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    db: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="SQLite file that keeps the runs.  [default: in memory]",
            show_default=False,
        ),
    ] = None,
    event_lookback: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Waits also see events that arrived this long before them.",
        ),
    ] = 0.0,
) -> None:
    """Start the engine for development, and with COMMAND your app beside it.

    Ctrl-C (or SIGTERM) stops both, exit code 0; a second Ctrl-C does not wait. When COMMAND ends by
    itself, the engine stops, too, and the exit code is the command's.
    """
    options = DevOptions(host, port, None if db is None else str(db), command or [], event_lookback)
    raise typer.Exit(asyncio.run(run_dev(options)))
