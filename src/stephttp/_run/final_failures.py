"""Final failures of steps: if one leaves a handler, the run ends at once, because another
call would only meet it again.
"""

from __future__ import annotations

from stephttp._core.retry_policy import parts
from stephttp._run.scope import RunScope

_FRAMEWORKS = frozenset(
    {"django", "falcon", "fastapi", "flask", "litestar", "quart", "starlette", "werkzeug"}
)
"""Packages that make an answer of an exception that leaves a handler."""
_ROUTERS = (
    "django.core.handlers.", "falcon.app", "falcon.asgi.app", "fastapi.routing", "flask.app",
    "litestar.routes.", "quart.app", "starlette.routing",
)  # fmt: skip
"""Modules that call handlers, and that no handler calls."""
_ENDPOINT = "stephttp._run.endpoint"
"""The module of the decorator that is around a handler."""
_MOST_CAUSES = 32
"""Exceptions of a chain of causes that are looked at; a chain may be a circle."""


class FinalFailures:
    """The failures that the steps of a re-entry raise, and would raise in every later call."""

    __slots__ = ("last", "parts", "raised")

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self.parts: list[BaseException] = []
        """Those of groups: a handler may let some of them through."""
        self.last = False
        """Whether the last thing that happened was one of them."""

    def note(self, error: BaseException) -> None:
        """Note that a step raises `error` in the handler."""
        self.raised.append(error)
        if isinstance(error, BaseExceptionGroup):
            self.parts += parts(error)
        self.last = True

    def explain(self, error: BaseException | None) -> bool:
        """Return whether a handler that has failed would only meet the same failure again.

        Args:
            error: what it raised. Without one, its framework has made an answer of that (Flask,
                Django); then it counts whether one of the failures came as far as the framework,
                or was the last thing that happened.
        """
        if error is None:
            return self.last or any(map(left_the_handler, self.raised))
        return self._led_to(error)

    def _led_to(self, error: BaseException | None) -> bool:
        for _ in range(_MOST_CAUSES):
            if error is None:
                return False
            if any(error is failure for failure in (*self.raised, *self.parts)):
                return True
            if isinstance(error, BaseExceptionGroup) and any(map(self._led_to, error.exceptions)):
                return True
            error = error.__cause__
        return False


def left_the_handler(error: BaseException) -> bool:
    """Return whether an exception was passed on by the handler.

    Its traceback starts where it was caught last: in a framework, or in a middleware of the user's
    behind which it has passed a router. Nothing else separates a handler that uses steps in a
    `finally` block from one that has handled the failure.
    """
    modules = []
    traceback = error.__traceback__
    while traceback is not None:
        modules.append(traceback.tb_frame.f_globals.get("__name__") or "")
        traceback = traceback.tb_next
    if not modules:  # Starlette takes the traceback away once it has made an answer
        return True
    if _ENDPOINT in modules or any(module.startswith(_ROUTERS) for module in modules):
        return True
    packages = (module.partition(".")[0] for module in modules)
    # asgiref raises it once more in each thread to which it is taken while it is handled.
    caught_by = next((package for package in packages if package != "asgiref"), "")
    return caught_by in _FRAMEWORKS


def failures_of(scope: RunScope) -> FinalFailures | None:
    """Return where failures of a re-entry are noted; `None` for a first call, which is not made
    again."""
    if not scope.run.resumed:
        return None
    scope.final_failures = scope.final_failures or FinalFailures()
    return scope.final_failures
