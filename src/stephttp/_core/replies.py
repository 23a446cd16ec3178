"""What an endpoint answers: to its caller when it goes async, to the server on re-entry.

A caller may say in `Prefer` whether and how long it waits (RFC 7240).
docs/protocol.md 6.3 and 7.2 say what the real server makes of an answer; 12.1 what follows for the
SDK.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

import msgspec

from stephttp._core.run import Run
from stephttp._wire.http import TOKEN_CHARACTER, Headers, Response
from stephttp._wire.ids import COMPLETE
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import Op, OpCode

JSON = (b"content-type", b"application/json")
RETRY_AFTER = b"2"
"""Seconds; a real server looks after runs as often (docs/protocol.md 7)."""

# What was once matched is never given back (`*+`): any caller sends this, and it may be long.
_QUOTED = r'"(?P<quoted>(?:[^"\\]|\\.)*+)"'
_VALUE = rf'\s*+=\s*+(?:{_QUOTED}|(?P<bare>[^\s",;]*+))'
_PARAMETERS = r'\s*+;[^,"]*+(?:"(?:[^"\\]|\\.)*+"[^,"]*+)*+'
_PREFERENCE = re.compile(
    rf"[,\s]*+(?P<name>{TOKEN_CHARACTER}++)(?:{_VALUE})?(?:{_PARAMETERS})?\s*+(?:,|$)"
)

MAX_WAIT = 300
"""Seconds; few connections survive a longer wait."""


class Prefer(msgspec.Struct, frozen=True):
    """The preferences of a caller.

    Attributes:
        respond_async: answer 202 rather than let the caller wait.
        wait: seconds that the caller is willing to wait; `None` if it does not say.
    """

    respond_async: bool = False
    wait: int | None = None

    @property
    def applied(self) -> bytes:
        """The value of `Preference-Applied`."""
        parts = ["respond-async"] if self.respond_async else []
        return ", ".join(parts + ([] if self.wait is None else [f"wait={self.wait}"])).encode()


def read_prefer(headers: Headers) -> Prefer:
    """Read all `Prefer` headers; of a preference that is given twice the first one counts."""
    text = ", ".join(value.decode("latin-1") for name, value in headers if name == b"prefer")
    found: dict[str, str] = {}
    position = 0
    while match := _PREFERENCE.match(text, position):
        found.setdefault(match["name"].lower(), match["quoted"] or match["bare"] or "")
        position = match.end()
    wait = found.get("wait", "")
    seconds = min(int(wait), MAX_WAIT) if re.fullmatch(r"[0-9]{1,9}", wait) else None
    return Prefer("respond-async" in found, seconds)


class RawResponse(msgspec.Struct):
    """A response as it is, where text and a map of headers are not enough."""

    headers: list[tuple[str, str]]
    body: str
    """Base64."""


class ResultData(msgspec.Struct, omit_defaults=True, gc=False):
    """`data` of the op that ends a run (docs/protocol.md 7.2)."""

    status: int
    headers: dict[str, str]
    body: str
    duration: int = 0
    """Nanoseconds."""
    error: str | None = None
    raw: RawResponse | None = None
    """Only for the stephttp engine, which announces that it reads it (docs/design.md 3.8)."""


def redirect(location: str) -> Response:
    """Send the caller to where the result will be: 303, so that the method becomes GET."""
    return Response(303, [(b"location", location.encode()), (b"content-length", b"0")])


def ops_answer(ops: Sequence[Op]) -> Response:
    """Report what a re-entry found to do next, and the latest time that a failed step asks for."""
    response = _json(206, encode_struct(ops))
    asked = [op.opts["retry_after"] for op in ops if op.opts and "retry_after" in op.opts]
    if asked:
        response.headers.append((b"retry-after", max(asked).encode()))
    return response


def unknown_step(run: Run, *, again: bool) -> Response:
    """Report that the handler did not reach the step the server asked for, as the JS SDK does.

    Args:
        again: an attempt is left, and another version of the application may have the step.
    """
    found = [{"id": step.hash, "name": step.step_id} for step in run.passed]
    body = {
        "error": f"the step {run.target} was asked for, but the handler did not come to it; "
        "was its id changed, or the code before it?",
        "requestedStep": run.target,
        "foundSteps": found,
        "totalFoundSteps": len(found),
    }
    response = _json(500, encode_struct(body))
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


def result_answer(
    op: Op, steps: Sequence[Op] = (), *, again: bool = False, retry_after: str | None = None
) -> Response:
    """Report the end of the run as one object: an array would lose its body (docs/protocol.md S1).

    Args:
        steps: finished ones that the server does not know yet; only for the stephttp engine, which
            accepts an array then (docs/design.md 3.8).
        again: it is a failure, and an attempt is left: the server is to call once more.
        retry_after: when, in RFC 3339.
    """
    response = _json(500 if again else 206, encode_struct([*steps, op] if steps else op))
    if again:
        response.headers.append((b"x-inngest-no-retry", b"false"))
        if retry_after is not None:
            response.headers.append((b"retry-after", retry_after.encode()))
    return response


def error_answer(status: int, message: str, headers: Headers | None = None) -> Response:
    """Answer with an error of the SDK, in the shape that servers use (docs/protocol.md 4.0)."""
    response = _json(status, encode_struct({"error": message, "data": None, "status": status}))
    response.headers += headers or []
    return response


def run_complete(
    response: Response,
    *,
    duration_ns: int,
    error: str | None = None,
    raw_allowed: bool = False,
    lossy: bool = False,
) -> Op:
    """Return the op that ends a run with the handler's response.

    Args:
        raw_allowed: whether the server reads `raw`. If not, a body that is not UTF-8 cannot be
            carried: the run then ends with a 500 that says so. Repeated headers become one, whose
            values are joined; of several cookies only the first survives.
        lossy: what is not UTF-8 in the body is replaced: its caller has the answer already.
    """
    text = response.body.decode(errors="replace") if lossy else _utf8(response.body)
    headers = _joined(response.headers)
    data = ResultData(response.status, headers, text or "", duration_ns, error)
    if raw_allowed and (text is None or len(headers) != len(response.headers)):
        data.body = ""
        data.raw = RawResponse(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers],
            base64.b64encode(response.body).decode(),
        )
    elif text is None:
        message = (
            "the response's body is not UTF-8 text, which this server cannot carry; "
            "answer such requests without waiting steps, or encode the body"
        )
        error_response = error_answer(500, message)
        data = ResultData(
            500, _joined(error_response.headers), error_response.body.decode(), duration_ns, message
        )
    return Op(OpCode.RUN_COMPLETE, COMPLETE, data=msgspec.Raw(encode_struct(data)))


def token_answer(run_id: str, token: str) -> Response:
    """Give the caller what opens the result."""
    return _json(200, encode_struct({"run_id": run_id, "token": token}))


def accepted(run_id: str, token: str, location: str, applied: bytes = b"") -> Response:
    """Answer a caller that does not want to wait for the run, which continues (RFC 7240)."""
    response = _json(202, encode_struct({"run_id": run_id, "token": token}))
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
    request = Op(OpCode.DISCOVERY_REQUEST, op_id, name=message)
    response = _json(status, encode_struct([request]))
    response.headers += headers
    return response


def _json(status: int, body: bytes) -> Response:
    length = (b"content-length", str(len(body)).encode())
    return Response(status, [JSON, length], body)


def _utf8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _joined(headers: Headers) -> dict[str, str]:
    """Return headers as a map; a repeated one becomes a list in one line (RFC 9110, 5.3), but for
    `Set-Cookie`, for which that section makes the exception."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        if key not in joined:
            joined[key] = text
        elif name != b"set-cookie":
            joined[key] += f", {text}"
    return joined
