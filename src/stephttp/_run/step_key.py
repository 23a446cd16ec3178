"""`stephttp.idempotency_key()`: the key of a step's requests to other services, the same in
each attempt.
"""

from __future__ import annotations

from stephttp._run.current import current_call
from stephttp._run.other_runs import other_run
from stephttp._run.places import enclosing_step
from stephttp._wire import ids
from stephttp.errors import OutsideRunError, UsageError


def idempotency_key() -> str:
    """Return a key for the requests of the current step to other services.

    It is the same in every attempt and every call of this step in this run, so a service that
    takes idempotency keys (Stripe, Adyen, your own with `setup(idempotency_header=)`) recognises
    a request that is made again because the process died before the step's result was stored. Two
    requests of one step need two keys: add a word of your own, `f"{idempotency_key()}-refund"`.

    Works in `async def` and `def` functions, and in threads that get the context of the step
    (`asyncio.to_thread`, `anyio.to_thread.run_sync`).

    Returns:
        67 characters: the run's id, `-`, and the step's hash.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware, or in a
            thread that did not get the context of the step (`loop.run_in_executor`).
        UsageError: called in a handler, but not inside a step.
    """
    call = enclosing_step()
    if call is not None:
        return ids.idempotency_key(call.scope.run.run_id, call.step.hash)
    if current_call.get() is None:
        if (other := other_run()) is not None:
            return other.idempotency_key()
        raise OutsideRunError(
            "stephttp.idempotency_key was called outside a request that passes through the "
            "stephttp middleware, so there is no run that could be repeated; use a key of your own "
            "there, such as the id of the order (in a thread of a step: start it with "
            "asyncio.to_thread, which hands the context on)"
        )
    raise UsageError(
        "stephttp.idempotency_key was called outside a step; call it in the function that you give "
        "to step.run"
    )
