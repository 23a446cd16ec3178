"""`stephttp signals send`."""

from __future__ import annotations

from typing import Annotated

import typer

from stephttp.cli import printing
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.shared_options import (
    AsJson,
    Data,
    EngineOptions,
    options_from,
    read_json,
)

_NOT_AWAITED = "No signal found"
"""What an engine and an Inngest server say then (docs/protocol.md 4.11)."""

signals = typer.Typer(no_args_is_help=True, help="Send signals.")


@signals.callback()
def _group() -> None:
    """Send signals."""


@signals.command("send")
@options_from(EngineOptions)
def send_signal(
    where: EngineOptions,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as approval:42.")],
    data: Data = "null",
    as_json: AsJson = False,
) -> None:
    """Send a signal: the run that waits for it continues.

    Exit code 1 if no run waits for it.
    """
    with where.open() as engine:
        if not name:
            raise RemoteError("NAME: must not be empty", Exit.USAGE)
        body = {"signal": name, "data": read_json(data, "--data")}
        try:
            run_id = engine.data("POST", "/v1/signals", body=body)["run_id"]
        except RemoteError as error:
            if str(error) != _NOT_AWAITED:
                raise
            raise RemoteError(f"no run waits for the signal {name!r}") from None
    if as_json:
        printing.print_json({"run_id": run_id})
    else:
        print(run_id)
