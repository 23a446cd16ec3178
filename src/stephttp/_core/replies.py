"""Answers of the SDK's own: token and error for a caller whose run waits, and errors for the server
where a re-entry fails.

docs/protocol.md 6.3 and 7.2 say what the real server makes of an answer; 12.1 what follows for the
SDK. The answers that carry ops are in `reports`.
"""

from __future__ import annotations

from collections.abc import Sequence

from stephttp._core.steps import Step
from stephttp._wire.http import Headers, Response, json_response
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import Op, OpCode

RETRY_AFTER = b"2"
"""Seconds; a real server looks after runs as often (docs/protocol.md 7)."""

RETRY_SOON = [(b"retry-after", b"5")]
"""Headers of an answer that asks to come again."""


def unknown_step(target: str | None, passed: Sequence[Step], *, again: bool) -> Response:
    """Report that the handler did not reach the step the server asked for, as the JS SDK does.

    Args:
        target: the hash of that step.
        passed: the steps that the handler came to.
        again: an attempt is left, and another version of the application may have the step.
    """
    found = [{"id": step.hash, "name": step.step_id} for step in passed]
    body = {
        "error": f"the step {target} was asked for, but the handler did not come to it; "
        "was its id changed, or the code before it?",
        "requestedStep": target,
        "foundSteps": found,
        "totalFoundSteps": len(found),
    }
    response = json_response(500, encode_struct(body))
    response.headers.append((b"x-inngest-no-retry", b"false" if again else b"true"))
    return response


def misdirected(response: Response) -> Response:
    """Report that this instance of the application does not seem to have the handler (RFC 9110,
    15.5.20); only for the stephttp engine, which calls again later (docs/protocol.md 12.1).

    Args:
        response: what was answered in its place.
    """
    return error_answer(
        421, f"the application answered {response.status} and came to none of the steps that are "
        "remembered of this run; does this version of it have the endpoint?",
    )  # fmt: skip


def error_answer(status: int, message: str, headers: Headers | None = None) -> Response:
    """Answer with an error of the SDK, in the shape that servers use (docs/protocol.md 4.0)."""
    response = json_response(
        status, encode_struct({"error": message, "data": None, "status": status})
    )
    response.headers += headers or []
    return response


def token_answer(run_id: str, token: str, location: str) -> Response:
    """Give the caller what opens the result, and its address."""
    body = {"run_id": run_id, "token": token, "result_url": location}
    return json_response(200, encode_struct(body))


def accepted(run_id: str, token: str, location: str, applied: bytes = b"") -> Response:
    """Answer a caller that does not want to wait for the run, which continues (RFC 7240)."""
    body = {"run_id": run_id, "token": token, "result_url": location}
    response = json_response(202, encode_struct(body))
    response.headers += [(b"location", location.encode()), (b"retry-after", RETRY_AFTER)]
    if applied:
        response.headers.append((b"preference-applied", applied))
    return response


def refused(status: int, message: str) -> Response:
    """Refuse a call of the server and end the run: another call would be refused as well.

    Without the header a real server would not end a run whose attempts are used up, and its
    caller would wait forever (docs/protocol.md 6.3).
    """
    return error_answer(status, message, [(b"x-inngest-no-retry", b"true")])


def call_again(status: int, message: str, headers: Headers, op_id: str) -> Response:
    """Answer with an error that makes a real server call again, whatever attempts are left. It
    reads an array as ops at any status (docs/protocol.md 6.3, 12.1)."""
    # At version 2 of the protocol, all that one answer has listed leads to one call, but for this.
    opts = {"parallelMode": "race"}
    request = Op(OpCode.DISCOVERY_REQUEST, op_id, name=message, opts=opts)
    response = json_response(status, encode_struct([request]))
    response.headers += headers
    return response
