"""`stephttp runs`: look at runs, end them, repeat them, follow them."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stephttp._core.durations import parse_duration
from stephttp.cli import output, showing, watching
from stephttp.cli.options import (
    AsJson,
    Limit,
    RunId,
    RunIds,
    SigningKey,
    SigningKeyFile,
    Url,
    remote,
)
from stephttp.cli.remote import Exit, Remote, RemoteError
from stephttp.cli.terminal import complain

runs = typer.Typer(no_args_is_help=True, help="Look at runs, end them, repeat them, follow them.")

_OURS = "/v1/stephttp/runs"
_PAGE = 100
_HASH = re.compile(r"[0-9a-f]{40}")

After = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Only what began after it: 2026-01-31T12:00, or so long ago: 30m, 2h, 7d.",
        show_default=False,
    ),
]
Before = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only what began before it.", show_default=False),
]


def moment(text: str | None, option: str) -> str | None:
    """A time for the API, from a time or from how long ago it was.

    Raises:
        RemoteError: it is neither.
    """
    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        return (now - parse_duration(text)).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        # Without a zone it is the reader's own.
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        message = (
            f"{option}: {text!r} is neither a time such as 2026-01-31T12:00 nor one such as 2h"
        )
        raise RemoteError(message, Exit.USAGE) from None


def pages(engine: Remote, path: str, params: dict[str, Any], limit: int) -> list[Any]:
    """The first `limit` items of a list that comes in pages."""
    items: list[Any] = []
    cursor = None
    while len(items) < limit:
        asked = {**params, "limit": min(_PAGE, limit - len(items))}
        answer = engine.ask("GET", path, params=asked | ({"cursor": cursor} if cursor else {}))
        page, told = answer["data"], answer["metadata"].get("page")
        items += page
        if told is not None:
            # A search may end early: then a short page is not the last.
            cursor = told["older"]
        else:
            # The cursor of events is the last one, as Inngest has it.
            cursor = page[-1]["internal_id"] if len(page) == asked["limit"] else None
        if not cursor:
            break
    return items


@runs.command("list")
def list_runs(
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only of this endpoint; may be repeated."),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="Only those that are running, waiting, completed, failed or cancelled; may be "
            "repeated.",
        ),
    ] = None,
    after: After = None,
    before: Before = None,
    text: Annotated[
        str | None,
        typer.Option(help="Only with this text in request, result, steps or errors."),
    ] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
    url: Url = None,
    signing_key: SigningKey = None,
    signing_key_file: SigningKeyFile = None,
) -> None:
    """List runs, newest first."""
    with remote(url, signing_key, signing_key_file) as engine:
        params = {
            "endpoint": endpoint or [],
            "status": status or [],
            "after": moment(after, "--after"),
            "before": moment(before, "--before"),
            "text": text,
        }
        wanted = {name: value for name, value in params.items() if value}
        found = pages(engine, "/v1/runs", wanted, limit)
    if as_json:
        output.print_json(found)
    else:
        showing.run_table(found)


@runs.command()
def show(
    run: RunId,
    as_json: AsJson = False,
    url: Url = None,
    signing_key: SigningKey = None,
    signing_key_file: SigningKeyFile = None,
) -> None:
    """Show one run: its request, steps, what it waits for, its answer."""
    with remote(url, signing_key, signing_key_file) as engine:
        detail = engine.data("GET", f"{_OURS}/{_id(run)}")
    if as_json:
        output.print_json(detail)
    else:
        showing.run(detail)


@runs.command()
def cancel(
    run: RunIds,
    as_json: AsJson = False,
    url: Url = None,
    signing_key: SigningKey = None,
    signing_key_file: SigningKeyFile = None,
) -> None:
    """End runs as cancelled. Those that have ended stay as they are."""
    done: list[dict[str, Any]] = []
    code = Exit.OK
    with remote(url, signing_key, signing_key_file) as engine:
        for one in map(_id, run):
            try:
                engine.ask("DELETE", f"/v1/runs/{one}")
                status = engine.data("GET", f"/v1/runs/{one}")["status"].lower()
                done.append({"run_id": one, "status": status})
            except RemoteError as error:
                if error.code is not Exit.FAILED:
                    raise
                complain(str(error))
                code = Exit.FAILED
    if as_json:
        output.print_json(done)
    else:
        for row in done:
            print(f"{row['run_id']} {row['status']}")
    raise typer.Exit(code)


@runs.command()
def rerun(
    run: RunId,
    from_step: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Keep what the steps before this one did; its id.",
            show_default=False,
        ),
    ] = None,
    step_input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="JSON",
            help="What that step gets, instead of what the handler says; @FILE, or - for standard "
            "input.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the new run to its end.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    signing_key: SigningKey = None,
    signing_key_file: SigningKeyFile = None,
) -> None:
    """Send the request of a run again, as a new run."""
    with remote(url, signing_key, signing_key_file) as engine:
        body: dict[str, Any] = {}
        if step_input is not None:
            if from_step is None:
                raise RemoteError("--input: name the step with --from-step", Exit.USAGE)
            body["input"] = read_json(step_input, "--input")
        if from_step is not None:
            body["step_id"] = _step(engine, _id(run), from_step)
        new = engine.data("POST", f"{_OURS}/{_id(run)}/rerun", body=body)["run_id"]
        if watch:
            if not as_json:
                print(new, flush=True)
            raise typer.Exit(watching.follow_run(engine, new, as_json=as_json))
    if as_json:
        output.print_json({"run_id": new, "rerun_of": _id(run)})
    else:
        print(new)


@runs.command()
def watch(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of a run; without it, all of them."),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    signing_key: SigningKey = None,
    signing_key_file: SigningKeyFile = None,
) -> None:
    """Follow a run to its end, or all runs until Ctrl-C.

    Exit code 0 if the run completed, 1 if it failed or was cancelled. With --json a line for each
    change.
    """
    with remote(url, signing_key, signing_key_file) as engine:
        if run is None:
            watching.follow_all(engine, as_json=as_json)
        else:
            raise typer.Exit(watching.follow_run(engine, _id(run), as_json=as_json))


def read_json(text: str, option: str) -> Any:
    """JSON from the command line itself, from a file (`@`), or from standard input (`-`).

    Raises:
        RemoteError: it is no JSON, or cannot be read.
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


def _id(run: str) -> str:
    # It becomes a part of a path.
    if not re.fullmatch(r"[0-9A-Za-z]{26}", run):
        raise RemoteError(
            f"{run!r} is not the id of a run, which has 26 letters and digits", Exit.USAGE
        )
    return run.upper()


def _step(engine: Remote, run_id: str, name: str) -> str:
    """The hash of a step that is named by it, or by what the user's code calls it."""
    if _HASH.fullmatch(name):
        return name
    steps = engine.data("GET", f"{_OURS}/{run_id}")["step_list"]
    found = [step["step_id"] for step in steps if step["id"] == name]
    if len(found) == 1:
        return str(found[0])
    known = ", ".join(sorted({step["id"] for step in steps if step["id"]})) or "none"
    what = "several, name one by its hash" if found else f"no such step, it has: {known}"
    raise RemoteError(f"--from-step: {name!r}: {what}", Exit.USAGE)
