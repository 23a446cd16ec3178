"""The command line itself: names, options, help. What the commands do is elsewhere.

Commands that work with a database import their parts themselves: the others should not take as
long to start as an engine does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stephttp._version import __version__
from stephttp.cli.doctor import doctor
from stephttp.cli.event_commands import events
from stephttp.cli.log_format import LogFormat
from stephttp.cli.run_commands import runs
from stephttp.cli.shared_options import AsJson

app = typer.Typer(name="stephttp", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(runs, name="runs")
app.add_typer(events, name="events")
app.command()(doctor)


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
    trust_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another name under which apps and browsers ask this engine, such as that of its "
            "container; may be repeated; * is any.  [default: localhost, addresses, --host]",
            show_default=False,
        ),
    ] = None,
    dashboard_password_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File with the dashboard's password, or its hash from `dashboard-password`. "
            "Or STEPHTTP_DASHBOARD_PASSWORD.  [default: one is made where other machines "
            "reach the engine, else none is needed]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start the engine for development, and with COMMAND your app beside it.

    Ctrl-C (or SIGTERM) stops both, exit code 0; a second Ctrl-C does not wait. When COMMAND ends by
    itself, the engine stops, too, and the exit code is the command's.
    """
    from stephttp.cli.dev import DevOptions, run_dev
    from stephttp.cli.serving import run

    options = DevOptions(
        host,
        port,
        None if db is None else str(db),
        command or [],
        event_lookback,
        trust_host or [],
        dashboard_password_file,
    )
    raise typer.Exit(run(run_dev(options), beside_app=bool(command)))


_Db = typer.Option(envvar="STEPHTTP_DB", dir_okay=False, help="SQLite file that keeps the runs.")


@app.command()
def start(
    db: Annotated[Path, _Db],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = 8288,
    signing_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Key that apps share with this engine. Repeat it for rotation: all are accepted, "
            "the first one signs. Others on this machine see it: prefer INNGEST_SIGNING_KEY (and "
            "INNGEST_SIGNING_KEY_FALLBACK) or a file.",
            show_default=False,
        ),
    ] = None,
    signing_key_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File with one signing key a line.", show_default=False),
    ] = None,
    event_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Key of those who send events; may be repeated. Or INNGEST_EVENT_KEY, or a file.",
            show_default=False,
        ),
    ] = None,
    event_key_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File with one event key a line.", show_default=False),
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Delete runs so long after their end: 12h, 7d.  [default: never]",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Call only these: app.example.com, *.example.com, 10.0.0.0/8, * (what is public), "
            "with or without :port; may be repeated.  [default: every public address]",
            show_default=False,
        ),
    ] = None,
    max_body: Annotated[
        int, typer.Option(min=1024, metavar="BYTES", help="Largest body of a request.")
    ] = 4 * 1024 * 1024,
    rate_limit: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="Requests a second from one address, where no signing key is needed; 0: any.",
        ),
    ] = 100.0,
    rate_burst: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="How many of them may come at once.")
    ] = 200,
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Believe X-Forwarded-For from here; may be repeated.  [default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    run_deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="A run that has not ended so long after its beginning fails: 1h, 30d.  "
            "[default: none]",
            show_default=False,
        ),
    ] = None,
    call_timeout: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="How long one call of an endpoint may take; one attempt."
        ),
    ] = "2h",
    retry_delay: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Before the second attempt of a failed step or handler; doubled for each further.",
        ),
    ] = "1s",
    retry_max_delay: Annotated[
        str, typer.Option(metavar="DURATION", help="No delay between attempts is longer.")
    ] = "1m",
    concurrency: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="How many endpoints are called at once.")
    ] = 64,
    grace: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="How long calls of endpoints may still take after SIGTERM."
        ),
    ] = "30s",
    event_lookback: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Waits also see events that arrived this long before them.",
        ),
    ] = 0.0,
    metrics_token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="What Prometheus shows to read /metrics, beside the signing keys. Others on this "
            "machine see it: prefer STEPHTTP_METRICS_TOKEN or a file.",
            show_default=False,
        ),
    ] = None,
    metrics_token_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File with that token.", show_default=False),
    ] = None,
    open_metrics: Annotated[
        bool, typer.Option("--open-metrics", help="Let everybody read /metrics.")
    ] = False,
    log_format: Annotated[LogFormat, typer.Option(help="How the log looks.")] = LogFormat.JSON,
    dashboard_password_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File with the dashboard's password, or its hash from `dashboard-password`. "
            "Or STEPHTTP_DASHBOARD_PASSWORD.  [default: nobody can log in]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start the engine for production.

    SIGTERM (or Ctrl-C) stops it in order: no new calls, those under way may end; exit code 0.
    """
    from stephttp.cli.serving import run
    from stephttp.cli.start import StartOptions, run_start

    options = StartOptions(
        host=host,
        port=port,
        db=str(db),
        signing_keys=signing_key or [],
        signing_key_file=signing_key_file,
        event_keys=event_key or [],
        event_key_file=event_key_file,
        retain=retain,
        allow_hosts=allow_host or [],
        max_body=max_body,
        rate_limit=rate_limit,
        rate_burst=rate_burst,
        trusted_proxies=trust_proxy or ["127.0.0.1"],
        grace=grace,
        run_deadline=run_deadline,
        call_timeout=call_timeout,
        retry_delay=retry_delay,
        retry_max_delay=retry_max_delay,
        concurrency=concurrency,
        event_lookback=event_lookback,
        metrics_token=metrics_token,
        metrics_token_file=metrics_token_file,
        open_metrics=open_metrics,
        log_format=log_format,
        dashboard_password_file=dashboard_password_file,
    )
    raise typer.Exit(run(run_start(options, os.environ)))


@app.command("check-db")
def check_db(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="The database.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check a database, even while an engine works with it.

    Exit code 0 if it is whole, 1 if it is not, 2 if it cannot be read.
    """
    from stephttp.cli.maintenance import run_check

    raise typer.Exit(run_check(str(file), as_json=as_json))


@app.command("dashboard-password")
def dashboard_password() -> None:
    """Ask for a password, and print the hash that can be configured in place of it.

    Exit code 2 if the password is too short.
    """
    from stephttp.cli.password_option import print_hash

    raise typer.Exit(print_hash())


@app.command()
def backup(
    file: Annotated[
        Path, typer.Argument(dir_okay=False, metavar="FILE", help="The copy to make or replace.")
    ],
    db: Annotated[Path, _Db],
    as_json: AsJson = False,
) -> None:
    """Copy a database to FILE, even while an engine works with it.

    FILE is replaced at the very end, by a copy that was checked. Keep it as secret as the
    database. Exit code 0 if there is a whole copy now, 2 if not.
    """
    from stephttp.cli.maintenance import run_backup

    raise typer.Exit(run_backup(str(db), str(file), as_json=as_json))
