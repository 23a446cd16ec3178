"""The options of `stephttp dev` and `stephttp start`: each once, with default, help and environment
variable.

The parameters of both commands are made from these classes. Tests compare them with `Settings`,
with the variables in `keys`, and with the tables of docs/operations.md and docs/cli.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stephttp.cli.ca_file import CaFile
from stephttp.cli.log_format import LogFormat
from stephttp.cli.ports import DEFAULT_PORT
from stephttp.cli.shared_options import SigningKeyFile

Db = Annotated[
    Path,
    typer.Option(envvar="STEPHTTP_DB", dir_okay=False, help="SQLite file that keeps the runs."),
]
"""Also an option of `backup`."""

_Host = Annotated[str, typer.Option(help="Address to listen on.")]
_EventLookback = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Waits also see events that arrived this long before them.",
    ),
]
_Hold = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="How long a caller waits for a result before it is redirected to wait again.",
    ),
]
_LinkLifetime = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long the link to a result is good: 1h, 30d.  [default: as long as the result is "
        "stored]",
        show_default=False,
    ),
]


_App = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Where an app serves functions of Inngest's SDKs, such as "
        "http://localhost:8000/api/inngest; may be repeated.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DevOptions:
    """What the command line of `stephttp dev` says."""

    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND...]",
            help="Also start the app, with INNGEST_DEV set, and end with it.",
            show_default=False,
        ),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port to listen on; 0 takes any free one.  [default: 8288, or the next free one]",
            show_default=False,
        ),
    ] = None
    host: _Host = "127.0.0.1"
    db: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="SQLite file that keeps the runs.  [default: in memory]",
            show_default=False,
        ),
    ] = None
    event_lookback: _EventLookback = 0.0
    hold: _Hold = "50s"
    link_lifetime: _LinkLifetime = None
    trust_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another host name under which apps and browsers reach this engine, such as its "
            "container's; may be repeated; * allows any.  [default: localhost, addresses, --host]",
            show_default=False,
        ),
    ] = None
    app: _App = None
    no_discovery: Annotated[
        bool,
        typer.Option(
            "--no-discovery", help="Do not look for apps with functions on this machine's ports."
        ),
    ] = False
    ca_file: CaFile = None
    dashboard_password_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File with the dashboard's password, or its hash from `dashboard-password`. "
            "Or STEPHTTP_DASHBOARD_PASSWORD.  [default: a new one if other machines can "
            "reach the engine; else none is needed]",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What the command line of `stephttp start` says, before variables and files are read."""

    db: Db
    host: _Host = "127.0.0.1"
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = DEFAULT_PORT
    signing_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Key that apps share with this engine. Repeat it for rotation: all are accepted, "
            "the first one signs. Others on this machine can see it: prefer INNGEST_SIGNING_KEY "
            "(and INNGEST_SIGNING_KEY_FALLBACK) or a file.",
            show_default=False,
        ),
    ] = None
    signing_key_file: SigningKeyFile = None
    event_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Key for sending events; may be repeated. Or INNGEST_EVENT_KEY, or a file.",
            show_default=False,
        ),
    ] = None
    event_key_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File with one event key a line.", show_default=False),
    ] = None
    retain: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Delete runs this long after they end: 12h, 7d.  [default: never]",
            show_default=False,
        ),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Call only these: app.example.com, *.example.com, 10.0.0.0/8, * (every public "
            "address), with or without :port; may be repeated.  [default: every public address]",
            show_default=False,
        ),
    ] = None
    app: _App = None
    ca_file: CaFile = None
    max_body: Annotated[
        int, typer.Option(min=1024, metavar="BYTES", help="Largest body of a request.")
    ] = 16 * 1024 * 1024
    max_state: Annotated[
        int,
        typer.Option(
            min=1024 * 1024, metavar="BYTES", help="Largest sum of the results of a run's steps."
        ),
    ] = 64 * 1024 * 1024
    max_stream: Annotated[
        int,
        typer.Option(min=0, metavar="BYTES", help="What a run may push to those who follow it."),
    ] = 1024 * 1024
    stream_retain: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How long that is kept after the end of the run."),
    ] = "1h"
    rate_limit: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="Requests a second from one address where no signing key is needed; 0: no limit.",
        ),
    ] = 100.0
    rate_burst: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="How many of them may come at once.")
    ] = 200
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Believe X-Forwarded-For from here; may be repeated.  [default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None
    run_deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Fail runs that have not ended this long after they began: 1h, 30d.  "
            "[default: none]",
            show_default=False,
        ),
    ] = None
    call_timeout: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="How long one call of an endpoint (one attempt) may take."
        ),
    ] = "2h"
    foreign_answer_timeout: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long calls that something other than the handler answers (an instance "
            "without the route) are made again, before their run fails.",
        ),
    ] = "24h"
    retry_delay: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Delay before the second attempt of a failed step or handler; doubles each time.",
        ),
    ] = "1s"
    retry_max_delay: Annotated[
        str, typer.Option(metavar="DURATION", help="Longest delay between attempts.")
    ] = "1m"
    concurrency: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="How many endpoints are called at once; an application may have as many calls as "
            "it leaves free.",
        ),
    ] = 128
    grace: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="How long calls of endpoints may continue after SIGTERM."
        ),
    ] = "30s"
    event_lookback: _EventLookback = 0.0
    hold: _Hold = "50s"
    link_lifetime: _LinkLifetime = None
    metrics_token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Token that lets Prometheus read /metrics; signing keys do, too. Others on this "
            "machine can see it: prefer STEPHTTP_METRICS_TOKEN or a file.",
            show_default=False,
        ),
    ] = None
    metrics_token_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File with that token.", show_default=False),
    ] = None
    open_metrics: Annotated[
        bool, typer.Option("--open-metrics", help="Let anyone read /metrics.")
    ] = False
    log_format: Annotated[LogFormat, typer.Option(help="Format of the log.")] = LogFormat.JSON
    dashboard_password_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File with the dashboard's password, or its hash from `dashboard-password`. "
            "Or STEPHTTP_DASHBOARD_PASSWORD.  [default: no one can log in]",
            show_default=False,
        ),
    ] = None
