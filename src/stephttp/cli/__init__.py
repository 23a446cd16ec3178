"""The `stephttp` command: it runs an engine, or speaks with one over HTTP.

Options, messages and exit codes belong here. The engine itself is in `stephttp.engine`; commands
that speak with one (`runs`, `events`, `doctor`) use its API and import nothing of it.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the command line names; the entry point of the console script."""
    try:
        from stephttp.cli.commands import app
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] == "stephttp":
            raise
        print(
            f"stephttp: this command needs the engine (no module named {missing.name!r}).\n"
            "Install it with: pip install 'stephttp[engine]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    app()
