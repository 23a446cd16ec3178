"""The database libraries that are watched once an application has loaded them: transactions that
steps may leave open, and requests that end without a response.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stephttp._run.step_call import StepCall

UNWATCHED = {
    "sqlalchemy.orm": "_sqlalchemy_session_watch",
    "sqlalchemy.engine": "_sqlalchemy_watch",
    "django.db.backends.base.base": "_django_watch",
    "django.core.handlers.base": "_django_requests",
}
"""What of `stephttp.integrations` watches a library, by its module that shows that it is loaded.
They are imported by name, because they stand above this package."""


class StepWatch(Protocol):
    """What looks at the sessions of a call before and after each step."""

    def began(self) -> Any:
        """Return what `ended` wants to know."""
        ...

    def ended(self, call: StepCall, before: Any) -> None:
        """See what a step has left behind that has returned."""
        ...


STEP_WATCH: StepWatch | None = None
"""Set once sessions are watched."""


LOADED = 0
"""How many modules were loaded when `watch_loaded` was called last."""


def watch_loaded() -> None:
    """Begin to watch the libraries that are loaded by now."""
    for library in [name for name in UNWATCHED if name in sys.modules]:
        watcher = UNWATCHED.pop(library, None)  # another thread may have been faster
        if watcher is not None:
            import_module(f"stephttp.integrations.{watcher}").watch()
