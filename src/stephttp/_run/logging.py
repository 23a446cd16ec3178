"""`ReplayLogger` and `ReplayFilter`: log lines of handlers that are not repeated in each
re-entry.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from stephttp._run.current import current_call

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


class ReplayLogger(Adapter):
    """A logger that is silent while a handler passes over what it did in earlier calls.

    Outside of runs, in first calls and inside steps it logs as always. Records of a run have its
    id as `run_id`.

    Args:
        logger: what it logs to, for example `logging.getLogger(__name__)`.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, None)

    def isEnabledFor(self, level: int) -> bool:
        """Whether a message would be logged here and now.

        Args:
            level: its level.
        """
        return not _replaying() and super().isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the run's id to what the caller gives as `extra`.

        Args:
            msg: the message.
            kwargs: what it is logged with.

        Returns:
            Both, for `logging`.
        """
        call = current_call.get()
        if call is not None:
            kwargs["extra"] = {"run_id": call.run_id, **(kwargs.get("extra") or {})}
        return msg, kwargs


class ReplayFilter(logging.Filter):
    """Drops what is logged while a handler passes over what it did in earlier calls.

    For loggers that are there already: `handler.addFilter(ReplayFilter())` for all that arrives at
    a handler, `logger.addFilter(ReplayFilter())` for what is logged with that very logger. A
    handler must run where the record is made, so put it before a `QueueHandler`'s queue.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged.

        Args:
            record: what was logged.
        """
        return not _replaying()


logger = ReplayLogger(logging.getLogger("stephttp.handlers"))
"""A `ReplayLogger` that logs to the logger `stephttp.handlers`."""


def _replaying() -> bool:
    call = current_call.get()
    return call is not None and call.replaying
