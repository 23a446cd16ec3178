"""The engine's log events: each has a name and fields, and no field holds a key, a token or a body.

A record of an event carries `event` (its name) and `fields`. Formatters are the command line's
part. No field may hold a key, a token, a query string or a body.
"""

from __future__ import annotations

import logging
from typing import Any


def log_event(
    logger: logging.Logger, level: int, event: str, message: str, /, **fields: Any
) -> None:
    """Log one event; docs/operations.md lists them all.

    Args:
        event: its name, such as `run.end`.
        message: a text for people.
        fields: JSON values; `None` is left out.
    """
    if not logger.isEnabledFor(level):
        return
    known = {name: value for name, value in fields.items() if value is not None}
    text = " ".join([message, *(f"{name}={value}" for name, value in known.items())])
    # Plain handlers, such as those of an application that embeds the engine, print the text.
    logger.log(level, "%s", text, extra={"event": event, "summary": message, "fields": known})
