"""What an event has to pass before it starts a function: `idempotency` and `rateLimit`. Pure.

Both are rates. An idempotency key lets one event pass in 24 hours. A rate limit spreads its runs
over the period, as Inngest's server does: a tenth of them may start at once beyond the one whose
turn it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from stephttp.engine.model.function_options import FunctionOptions
from stephttp.engine.model.function_start import Start
from stephttp.engine.model.started import Refusal
from stephttp.engine.model.values import Value
from stephttp.engine.rules.functions.gcra import Rate
from stephttp.engine.rules.functions.limit_names import limit_name

_DAY_MS = 86_400_000
_BURST = 10
"""Of so many runs of a rate limit, one more may start at once."""


class StartLimit(Value, frozen=True, gc=False):
    """A limit that a start has to pass.

    Attributes:
        name: the same for all starts that share it.
        refusal: for one that does not pass.
    """

    name: str
    rate: Rate
    refusal: Refusal


def limits_of(start: Start, options: FunctionOptions) -> Iterator[StartLimit]:
    """Return the limits of a start, in the order in which they are asked.

    Args:
        options: those that the function has by now.
    """
    fn_id = start.function.fn_id
    if start.idempotency is not None and options.idempotency is not None:
        name = limit_name(f"idempotency {fn_id}", start.idempotency)
        reason = "idempotency: an event with the same key was accepted in the last 24 hours"
        yield StartLimit(name, Rate(1, _DAY_MS), Refusal(reason))
    limit = options.rate_limit
    if start.rate_limit is not None and limit is not None:
        # A limit that was changed is another one, of which nothing is used up.
        name = limit_name(f"rate {limit.most} {limit.period_ms} {fn_id}", start.rate_limit)
        rate = Rate(limit.most, limit.period_ms, limit.most // _BURST)
        reason = f"rateLimit: {limit.most} in {limit.period_ms / 1000:g} s"
        yield StartLimit(name, rate, Refusal(reason, HTTPStatus.TOO_MANY_REQUESTS))
