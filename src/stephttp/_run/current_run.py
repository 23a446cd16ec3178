"""`stephttp.current_run()`: id, attempt, `replaying`, `result_url`; the run from inside."""

from __future__ import annotations

from stephttp._run.current import CurrentCall, current_call
from stephttp._run.suspend import result_url
from stephttp._wire.run_links import FEATURE, run_link
from stephttp.errors import OutsideRunError, UsageError
from stephttp.options import CLOUD_URL


class CurrentRun:
    """The run that the current request belongs to. Returned by `current_run`.

    Attributes:
        id: a ULID, the same in every call of the handler.
        attempt: how many calls of the handler for the same purpose failed before this one; 0 in the
            first call.
    """

    __slots__ = ("_call", "attempt", "id")

    def __init__(self, call: CurrentCall) -> None:
        self._call = call
        self.id = call.run_id
        self.attempt = call.attempt

    def __repr__(self) -> str:
        return f"<CurrentRun {self.id}>"

    @property
    def replaying(self) -> bool:
        """True while the handler only passes over steps that earlier calls have done."""
        return self._call.replaying

    @property
    def result_url(self) -> str:
        """The address at which anyone who has it can wait for the run's result, and read it as long
        as the run is stored: a path if `result_path` is set. It is known before the first step, and
        stays the same. Its readers get the handler's status, headers and body, without cookies.

        The run is then recorded, also if it uses no steps.

        Raises:
            UsageError: the server is not a stephttp engine. An Inngest server gives the address
                with its answer to a run that waits: `AsyncResponseCustom` gets it.
        """
        runtime = self._call.runtime
        settings, keys = runtime.settings, runtime.checkpoints.keys
        known = keys.features is not None
        if settings.base_url == CLOUD_URL or (known and not keys.supports(FEATURE)):
            raise UsageError(
                "result_url needs a stephttp engine, because an Inngest server tells the address "
                "of a result only when a run waits; use stephttp.AsyncResponseCustom, which gets it"
            )
        if not self._call.left:
            self._call.scope().run.track()
        link = run_link(self.id, settings.keys[0] if settings.keys else "")
        return result_url(settings, self.id, link)


def current_run() -> CurrentRun:
    """Return the run that the current request belongs to.

    Works in `async def` and `def` handlers, in steps, dependencies and middleware of the
    framework behind that of stephttp, and in threads that get the context of the request
    (`asyncio.to_thread`, `anyio.to_thread.run_sync`, the threads of `def` routes and of
    `step.parallel`).

    Returns:
        The run; without a step it need not be recorded.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        UsageError: the request cannot have a run, because no event loop of asyncio serves it.
    """
    call = current_call.get()
    if call is None:
        raise OutsideRunError(
            "stephttp.current_run was called outside a request that passes through the stephttp "
            "middleware (in a thread: start it with asyncio.to_thread, which hands the context on)"
        )
    if not call.can_have_run:
        call.scope()  # raises
    return CurrentRun(call)
