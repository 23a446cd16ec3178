"""The `stephttp` command.

Beside `stephttp.testing`, only this package may import both the SDK and the engine.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script: run the command named on the command line."""
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
