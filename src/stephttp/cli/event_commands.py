"""`stephttp events send` and `stephttp events list`."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from stephttp.cli import human_readable, printing
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote, explain
from stephttp.cli.shared_options import (
    After,
    AsJson,
    Before,
    Data,
    EngineOptions,
    Limit,
    SenderOptions,
    options_from,
    parse_time,
    read_json,
)

events = typer.Typer(no_args_is_help=True, help="Send events, and list those that were sent.")

_ANY_KEY = "stephttp"
"""An engine for development accepts events with any key."""


@events.command("send")
@options_from(SenderOptions)
def send_event(
    where: SenderOptions,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as order/paid.")],
    data: Data = "{}",
    event_id: Annotated[
        str | None,
        typer.Option("--id", help="A second event with the same id has no effect."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send an event; runs that wait for it continue.

    This needs an event key, or else a signing key.
    """
    with where.open() as engine:
        if not name:
            raise RemoteError("NAME: must not be empty", Exit.USAGE)
        value = read_json(data, "--data")
        if not isinstance(value, dict):
            raise RemoteError("--data: must be a JSON object, such as '{\"id\": 1}'", Exit.USAGE)
        event = {"name": name, "data": value} | ({"id": event_id} if event_id else {})
        sent = _send(engine, event)
    if as_json:
        printing.print_json({"ids": [sent]})
    else:
        print(sent)


@events.command("list")
@options_from(EngineOptions)
def list_events(
    where: EngineOptions,
    name: Annotated[str | None, typer.Option(help="Only events of this name.")] = None,
    after: After = None,
    before: Before = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List events, newest first."""
    with where.open() as engine:
        params = {
            "name": name,
            "received_after": parse_time(after, "--after"),
            "received_before": parse_time(before, "--before"),
        }
        found = engine.pages("/v1/events", params, limit)
    if as_json:
        printing.print_json(found)
    else:
        human_readable.event_table(found)


def _send(engine: Remote, event: dict[str, Any]) -> str:
    keys = engine.target.event_keys
    if not keys and engine.target.signing_keys:
        return str(engine.data("POST", "/v1/stephttp/events", body=event)["internal_id"])
    response = engine.post_event(quote(keys[0] if keys else _ANY_KEY, safe=""), event)
    if response.status_code == 401:
        message = "wrong event key" if keys else "it asks for an event key: set INNGEST_EVENT_KEY"
        raise RemoteError(f"{engine.target.url}: {message} (401)", Exit.KEY)
    if not response.is_success:
        raise RemoteError(explain(response))
    return str(response.json()["ids"][0])
