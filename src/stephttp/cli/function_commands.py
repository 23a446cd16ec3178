"""`stephttp functions`: list, pause, resume and invoke functions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stephttp.cli import printing, watching
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote
from stephttp.cli.shared_options import AsJson, Data, EngineOptions, options_from, read_json

functions = typer.Typer(no_args_is_help=True, help="List, pause, resume and invoke functions.")

_OURS = "/v1/stephttp/functions"

_HELD = "no run yet; its options (debounce, batchEvents) hold the event until it starts one"

_CHANGED = {
    (True, True): "is paused",
    (True, False): "is already paused",
    (False, True): "is resumed",
    (False, False): "was not paused",
}

Name = Annotated[
    str, typer.Argument(metavar="FUNCTION", help="Its slug, such as shop-pack, or its id.")
]


@functions.command("list")
@options_from(EngineOptions)
def list_functions(where: EngineOptions, as_json: AsJson = False) -> None:
    """List the functions that apps have registered, with what starts them."""
    with where.open() as engine:
        found = engine.data("GET", _OURS)
    if as_json:
        printing.print_json(found)
        return
    rows = [
        (one["function"], printing.state(_state(one)), _triggers(one), one["not_started"] or "")
        for one in found
    ]
    printing.print_table(("FUNCTION", "STATE", "STARTS WITH", ""), rows)


@functions.command()
@options_from(EngineOptions)
def pause(where: EngineOptions, function: Name, as_json: AsJson = False) -> None:
    """Pause a function: nothing starts it until it is resumed.

    What comes meanwhile is not made up for. The runs that the function has continue.
    """
    _change(where, function, "pause", as_json=as_json)


@functions.command()
@options_from(EngineOptions)
def resume(where: EngineOptions, function: Name, as_json: AsJson = False) -> None:
    """Resume a function that is paused."""
    _change(where, function, "resume", as_json=as_json)


@functions.command()
@options_from(EngineOptions)
def invoke(
    where: EngineOptions,
    function: Name,
    data: Data = "{}",
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a function with an event that is for it alone, and print the id of the run.

    If the options of the function hold the event, so that the run starts later, standard error says
    so. Exit code 1 if they refuse it, or if the function is paused.
    """
    with where.open() as engine:
        value = read_json(data, "--data")
        if not isinstance(value, dict):
            raise RemoteError("--data: must be a JSON object, such as '{\"id\": 1}'", Exit.USAGE)
        path = f"{_OURS}/{_id(engine, function)}/invoke"
        invoked = engine.data("POST", path, body={"data": value})
        run_id = invoked["run_id"]
        if watch and run_id is not None:
            if not as_json:
                print(run_id, flush=True)
            raise typer.Exit(watching.follow_run(engine, run_id, as_json=as_json))
    if as_json:
        printing.print_json(invoked)
    elif run_id is not None:
        print(run_id)
    else:
        typer.echo(f"stephttp: {printing.clean(function)}: {_HELD}", err=True)


def _change(where: EngineOptions, name: str, what: str, *, as_json: bool) -> None:
    with where.open() as engine:
        changed = engine.data("POST", f"{_OURS}/{_id(engine, name)}/{what}")
    if as_json:
        printing.print_json(changed)
    else:
        print(f"{name} {_CHANGED[changed['paused'], changed['modified']]}")


def _id(engine: Remote, name: str) -> str:
    """Return the id of a function: a slug may have what a path cannot carry.

    Raises:
        RemoteError: there is no such function.
    """
    known = engine.data("GET", _OURS)
    for one in known:
        if name in (one["function"], one["function_id"]):
            return str(one["function_id"])
    slugs = printing.clean(", ".join(one["function"] for one in known)) or "none"
    raise RemoteError(f"FUNCTION: there is no {name!r}; the engine knows: {slugs}")


def _state(one: dict[str, Any]) -> str:
    if one["not_started"] is None:
        return "ready"
    return "paused" if one["paused"] else "refused"


def _triggers(one: dict[str, Any]) -> str:
    return ", ".join(
        trigger["cron"]
        or trigger["event"] + (f" if {trigger['condition']}" if trigger["condition"] else "")
        for trigger in one["triggers"]
    )
