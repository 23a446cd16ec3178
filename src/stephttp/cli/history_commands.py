"""`stephttp runs export` and `stephttp check`: their options, and where the runs come from."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote
from stephttp.cli.shared_options import (
    AsJson,
    Endpoints,
    EngineOptions,
    RunId,
    exit_on_error,
    options_from,
)

if TYPE_CHECKING:
    from stephttp.cli.history_sources import Histories

_COULD_NOT = 2
"""The exit code of `check` if a run, or all of them, could not be checked."""

Database = Annotated[
    Path | None,
    typer.Option(
        "--db",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="The database of an engine, in place of --url; it is only read.",
        show_default=False,
    ),
]
Application = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:NAME",
        help="The application, such as shop:app, as a server is given it.",
        show_default=False,
    ),
]


@options_from(EngineOptions)
def export(
    where: EngineOptions,
    run: RunId,
    db: Database = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, help="The file to write.", show_default=False
        ),
    ] = None,
    as_test: Annotated[
        bool, typer.Option("--as-test", help="Write a test for pytest that replays the run.")
    ] = False,
    app: Application = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further field whose values are not to be shown; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the history of a run as JSON, without its secrets.

    `stephttp.testing.replay` proves by it that other code still accepts the run.
    """
    from stephttp.cli.run_commands import checked_id
    from stephttp.cli.test_files import test_file
    from stephttp.testing.masking import mask as without_secrets

    with exit_on_error():
        if as_test and not app:
            raise RemoteError("--as-test: name the application with --app", Exit.USAGE)
        run_id = checked_id(run)
        with _histories(db, where) as histories:
            history = without_secrets(histories.history(run_id), mask or ())
        if as_test and history.run.of_function:
            raise RemoteError(f"--as-test: {history.cannot_be_sent}", Exit.USAGE)
        text = test_file(history, app) if as_test and app else history.dump()
        if output is None:
            print(text, end="")
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RemoteError(f"--output: {error}", Exit.USAGE) from None
        print(output)


@options_from(EngineOptions)
def check(
    where: EngineOptions,
    app: Application = None,
    db: Database = None,
    endpoint: Endpoints = None,
    no_lifespan: Annotated[
        bool, typer.Option("--no-lifespan", help="Do not start the application (ASGI).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replay every unfinished run against the code at hand: which are safe, and which diverge?

    No step runs, and the engine is only read. The application starts and ends, and its middleware,
    its dependencies and the code between steps run, with all that they do. Exit code 0 if all are
    safe, 1 if one diverges, 2 if none does, but not all could be checked.
    """
    from stephttp.cli.checking import run_check

    try:
        with exit_on_error():
            if not app:
                raise RemoteError("--app: name the application, such as shop:app", Exit.USAGE)
            with _histories(db, where) as histories:
                code = run_check(
                    histories, app, endpoint or (), lifespan=not no_lifespan, as_json=as_json
                )
    except typer.Exit as ended:
        stays = (Exit.OK, Exit.INTERRUPTED)
        raise typer.Exit(ended.exit_code if ended.exit_code in stays else _COULD_NOT) from None
    raise typer.Exit(code)


@contextmanager
def _histories(db: Path | None, where: EngineOptions) -> Generator[Histories]:
    """Open the runs that the options name."""
    from stephttp.cli.history_sources import RemoteHistories, stored_histories

    if db is not None and where.url is not None:
        raise RemoteError("--db and --url: give one of them", Exit.USAGE)
    if db is not None:
        with stored_histories(db) as stored:
            yield stored
        return
    with Remote(where.target()) as engine:
        yield RemoteHistories(engine)
