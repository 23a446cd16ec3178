"""`stephttp runs`: list, show, cancel, rerun, resume and watch runs."""

from __future__ import annotations

import re
import shlex
from http import HTTPStatus
from typing import Annotated, Any

import typer

from stephttp.cli import human_readable, printing, watching
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.printing import clean
from stephttp.cli.remote import Remote
from stephttp.cli.shared_options import (
    After,
    AsJson,
    Before,
    Endpoints,
    EngineOptions,
    Limit,
    RunId,
    RunIds,
    options_from,
    parse_time,
    read_json,
)
from stephttp.cli.terminal import complain

runs = typer.Typer(no_args_is_help=True, help="List, show, cancel, rerun, resume and watch runs.")

_OURS = "/v1/stephttp/runs"
_HASH = re.compile(r"[0-9a-f]{40}")


@runs.command("list")
@options_from(EngineOptions)
def list_runs(
    where: EngineOptions,
    endpoint: Endpoints = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="Only runs that are running, waiting, completed, failed or cancelled; may be "
            "repeated.",
        ),
    ] = None,
    after: After = None,
    before: Before = None,
    text: Annotated[
        str | None,
        typer.Option(help="Only runs with this text in request, result, steps or errors."),
    ] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    with where.open() as engine:
        params = {
            "endpoint": endpoint or [],
            "status": status or [],
            "after": parse_time(after, "--after"),
            "before": parse_time(before, "--before"),
            "text": text,
        }
        found = engine.pages("/v1/runs", params, limit)
    if as_json:
        printing.print_json(found)
    else:
        human_readable.run_table(found)


@runs.command()
@options_from(EngineOptions)
def show(
    where: EngineOptions,
    run: RunId,
    as_json: AsJson = False,
) -> None:
    """Show one run: its request, its steps, what it waits for, and its response."""
    with where.open() as engine:
        detail = engine.data("GET", f"{_OURS}/{checked_id(run)}")
    if as_json:
        printing.print_json(detail)
    else:
        human_readable.run(detail)


@runs.command()
@options_from(EngineOptions)
def cancel(
    where: EngineOptions,
    run: RunIds,
    as_json: AsJson = False,
) -> None:
    """Cancel runs. Runs that have ended stay as they are."""
    done: list[dict[str, Any]] = []
    code = Exit.OK
    with where.open() as engine:
        for one in map(checked_id, run):
            try:
                engine.json("DELETE", f"/v1/runs/{one}")
                status = engine.data("GET", f"/v1/runs/{one}")["status"].lower()
                done.append({"run_id": one, "status": status})
            except RemoteError as error:
                if error.code is not Exit.FAILED:
                    raise
                complain(str(error))
                code = Exit.FAILED
    if as_json:
        printing.print_json(done)
    else:
        for row in done:
            print(f"{row['run_id']} {row['status']}")
    raise typer.Exit(code)


@runs.command()
@options_from(EngineOptions)
def rerun(
    where: EngineOptions,
    run: RunId,
    from_step: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Id of the first step to run again; earlier steps keep their results.",
            show_default=False,
        ),
    ] = None,
    step_input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="JSON",
            help="Input of that step, in place of the handler's; @FILE reads a file, - standard "
            "input.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the new run to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the request of a run again, as a new run."""
    with where.open() as engine:
        body: dict[str, Any] = {}
        if step_input is not None:
            if from_step is None:
                raise RemoteError("--input: name the step with --from-step", Exit.USAGE)
            body["input"] = read_json(step_input, "--input")
        if from_step is not None:
            body["step_id"] = _step(engine, checked_id(run), from_step, "--from-step")
        new = engine.data("POST", f"{_OURS}/{checked_id(run)}/rerun", body=body)["run_id"]
        if watch:
            if not as_json:
                print(new, flush=True)
            raise typer.Exit(watching.follow_run(engine, new, as_json=as_json))
    if as_json:
        printing.print_json({"run_id": new, "rerun_of": checked_id(run)})
    else:
        print(new)


@runs.command()
@options_from(EngineOptions)
def resume(
    where: EngineOptions,
    run: RunId,
    step: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Id of the one step whose wait ends, also one for an event or a signal.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a run continue now: sleeps end, and failed attempts are repeated.

    With --step only the wait of that step ends, one for an event as at its timeout. Exit code 1 if
    nothing could end.
    """
    with where.open() as engine:
        body = {} if step is None else {"step_id": _step(engine, checked_id(run), step, "--step")}
        try:
            waits = engine.data("POST", f"{_OURS}/{checked_id(run)}/resume", body=body)["waits"]
        except RemoteError as error:
            if step is not None or error.status != HTTPStatus.CONFLICT:
                raise
            raise _not_resumed(engine, checked_id(run), error) from None
    if as_json:
        printing.print_json({"run_id": checked_id(run), "waits": waits})
    else:
        print(f"{checked_id(run)} continues; waits that ended: {waits}")


@runs.command()
@options_from(EngineOptions)
def watch(
    where: EngineOptions,
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of a run; without it, all runs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a run to its end, or all runs until Ctrl-C.

    Exit code 0 if the run completed, 1 if it failed or was cancelled. --json prints a line for each
    change.
    """
    with where.open() as engine:
        if run is None:
            watching.follow_all(engine, as_json=as_json)
        else:
            raise typer.Exit(watching.follow_run(engine, checked_id(run), as_json=as_json))


def checked_id(run: str) -> str:
    """Return the id of a run, which becomes a part of a path.

    Raises:
        RemoteError: it is not one.
    """
    if not re.fullmatch(r"[0-9A-Za-z]{26}", run):
        raise RemoteError(f"{run!r} is not the id of a run, which has 26 characters", Exit.USAGE)
    return run.upper()


def _not_resumed(engine: Remote, run_id: str, error: RemoteError) -> RemoteError:
    """Return the error that says what a run waits for, if `--step` would end that."""
    waits = [one for one in engine.data("GET", f"{_OURS}/{run_id}")["waiting_for"] if one["step"]]
    if not waits:
        return error
    named = clean(", ".join(map(human_readable.wait, waits)))
    steps = " or ".join(f"--step {shlex.quote(clean(one['step']))}" for one in waits)
    return RemoteError(f"run {run_id} waits for {named}; end one with {steps}")


def _step(engine: Remote, run_id: str, name: str, option: str) -> str:
    """Return the hash of a step, given as its hash or its id in the user's code."""
    if _HASH.fullmatch(name):
        return name
    steps = engine.data("GET", f"{_OURS}/{run_id}")["step_list"]
    found = [step["step_id"] for step in steps if step["id"] == name]
    if len(found) == 1:
        return str(found[0])
    known = ", ".join(sorted({step["id"] for step in steps if step["id"]})) or "none"
    what = "several, name one by its hash" if found else f"no such step, it has: {known}"
    raise RemoteError(f"{option}: {name!r}: {what}", Exit.USAGE)
