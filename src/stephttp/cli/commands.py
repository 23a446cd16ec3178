"""The command line: the names of all commands, with their help. Other modules carry them out.

Commands that need the engine import it themselves, so that the others start faster.
"""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from stephttp._version import __version__
from stephttp.cli.doctor import doctor
from stephttp.cli.engine_options import Db, DevOptions, StartOptions
from stephttp.cli.event_commands import events
from stephttp.cli.function_commands import functions
from stephttp.cli.history_commands import check, export
from stephttp.cli.run_commands import runs
from stephttp.cli.shared_options import AsJson, options_from
from stephttp.cli.signal_commands import signals

app = typer.Typer(name="stephttp", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(runs, name="runs")
app.add_typer(events, name="events")
app.add_typer(functions, name="functions")
app.add_typer(signals, name="signals")
app.command()(doctor)
app.command()(check)
runs.command()(export)


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
@options_from(DevOptions)
def dev(options: DevOptions) -> None:
    """Start the engine for development, and with COMMAND your app beside it.

    Ctrl-C (or SIGTERM) stops both, exit code 0; a second Ctrl-C does not wait. When COMMAND ends by
    itself, the engine stops, too, and the exit code is the command's.
    """
    from stephttp.cli.dev import run_dev
    from stephttp.cli.serving import run

    raise typer.Exit(run(run_dev(options), beside_app=bool(options.command)))


@app.command()
@options_from(StartOptions)
def start(options: StartOptions) -> None:
    """Start the engine for production.

    SIGTERM (or Ctrl-C) stops it in order: it makes no new calls, and those under way may finish;
    exit code 0.
    """
    from stephttp.cli.serving import run
    from stephttp.cli.start_command import run_start

    raise typer.Exit(run(run_start(options, os.environ)))


@app.command("check-db")
def check_db(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="The database.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check a database, even while an engine uses it.

    Exit code 0 if it is whole, 1 if it is not, 2 if it cannot be read.
    """
    from stephttp.cli.maintenance import run_check

    raise typer.Exit(run_check(str(file), as_json=as_json))


@app.command("dashboard-password")
def dashboard_password() -> None:
    """Ask for a password, and print the hash that can be configured in its place.

    Exit code 2 if the password is too short.
    """
    from stephttp.cli.password_option import print_hash

    raise typer.Exit(print_hash())


@app.command()
def backup(
    file: Annotated[
        Path, typer.Argument(dir_okay=False, metavar="FILE", help="The copy to make or replace.")
    ],
    db: Db,
    as_json: AsJson = False,
) -> None:
    """Copy a database to FILE, even while an engine uses it.

    FILE is replaced only at the end, by a copy that was checked. Keep it as secret as the
    database. Exit code 0 if there is a whole copy now, 2 if not.
    """
    from stephttp.cli.maintenance import run_backup

    raise typer.Exit(run_backup(str(db), str(file), as_json=as_json))


def _let_lines_flow() -> None:
    """Let the terminal break the lines of help texts: the ends of those here are for editors."""
    for group in (app, runs, events, functions, signals):
        for command in group.registered_commands:
            text = inspect.cleandoc(
                command.help or getattr(command.callback, "__doc__", None) or ""
            )
            command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", text)


_let_lines_flow()
