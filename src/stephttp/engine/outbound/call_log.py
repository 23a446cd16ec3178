"""The line of the log about a call of an endpoint."""

from __future__ import annotations

import logging

from stephttp.engine.logs import log_event
from stephttp.engine.model.call import EndpointCall
from stephttp.engine.model.inputs import CallFailure
from stephttp.engine.rules.answers import HTTPResponse

log = logging.getLogger("stephttp.engine.executor")


def log_call(
    call: EndpointCall, answer: HTTPResponse | CallFailure, failure: CallFailure | None, ms: int
) -> None:
    """Log how a call of an endpoint ended, after so many milliseconds."""
    level = logging.INFO if failure is None else logging.WARNING
    if log.isEnabledFor(level):
        log_event(
            log,
            level,
            "reentry",
            "endpoint called",
            run_id=call.run_id,
            job_id=call.job_id,
            attempt=call.attempt,
            method=call.method,
            origin=call.domain,
            status=answer.status if isinstance(answer, HTTPResponse) else None,
            failure=failure.kind.value if failure else None,
            error=failure.name if failure else None,
            # What an endpoint says of its failure may hold secrets of its users. Only why it was
            # not reached is logged in full.
            detail=answer.message if isinstance(answer, CallFailure) else None,
            duration_ms=ms,
        )
