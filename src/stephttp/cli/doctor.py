"""`stephttp doctor`: its options, its list of checks, and its exit code."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.text import Text

from stephttp.cli import printing
from stephttp.cli.doctor_checks import ERROR, Check, check_all
from stephttp.cli.exits import Exit
from stephttp.cli.inngest_checks import check_inngest
from stephttp.cli.shared_options import AsJson, SenderOptions, options_from

_MARKS = {"ok": "✓", "warning": "!", "error": "✗", "skipped": "-"}


@options_from(SenderOptions)
def doctor(
    where: SenderOptions,
    app: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="URL of an application to check as well, such as http://localhost:8000; may be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    inngest: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of an Inngest server to which endpoints are to move: check that instead, "
            "with the applications of --app.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong between here, the engine and applications.

    It checks keys, clocks and versions, and whether engine and applications reach each other. The
    engine may also be an Inngest server. Exit code 0 if nothing is wrong (warnings do not count),
    else 1. With --inngest, it finds what is in the way of moving to such a server.
    """
    checks: list[Check] = []
    check_server = check_all if inngest is None else check_inngest
    with replace(where, url=inngest or where.url).open() as server:
        for check in check_server(server, app or []):
            checks.append(check)
            if not as_json:
                _show(check)
    failed = any(check.status == ERROR for check in checks)
    if as_json:
        printing.print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    raise typer.Exit(Exit.FAILED if failed else Exit.OK)


def _show(check: Check) -> None:
    out = printing.console()
    style = printing.STATES[check.status]
    mark = _MARKS[check.status] if out.encoding.startswith("utf") else check.status
    out.print(
        Text.assemble((mark, style), " ", (check.name, "bold"), f": {printing.clean(check.detail)}")
    )
    if check.fix:
        out.print(Text(f"  {printing.clean(check.fix)}"))
