"""A second look at what an Inngest server gives as the result of a failed or cancelled run
(docs/protocol.md 13.10).

its answer                      the run
200, empty, for two seconds     its record has the result, or says that it was cancelled
200, {"error": ...}             failed, if its record says so: the server has no status for that
"""

from __future__ import annotations

import logging
import random

from stephttp._client import run_calls
from stephttp._client.flow import Flow, Keys
from stephttp._wire.http import Response, json_response
from stephttp._wire.json import encode_struct
from stephttp.errors import APIError, RunNotFoundError

logger = logging.getLogger("stephttp")

_CONFLICT, _FAILED = 409, 500


def look(run_id: str, answer: Response, keys: Keys, rng: random.Random) -> Flow[Response | None]:
    """Return what an answer of a real server stands for; `None`: for nothing yet.

    Args:
        answer: what it gave as the result.
    """
    try:
        ended = yield from run_calls.ended(run_id, keys, rng)
    except RunNotFoundError:
        return answer
    except (APIError, ValueError) as error:
        logger.warning(
            "stephttp: run %s: the server's answer is not a result, and the record of the run "
            "cannot be read: %s", run_id, error,
        )  # fmt: skip
        return answer if answer.body else None
    if ended is None:
        return None
    status, result, output = ended
    if status == "cancelled":
        return _error(_CONFLICT, "CancelledError", "the run was cancelled")
    if result is not None:
        return Response.of(result.status_code, result.body, result.headers)
    if status != "failed":
        return answer
    if not output:
        return _error(_FAILED, "Error", "the run has failed")
    return json_response(_FAILED, output)


def _error(status: int, name: str, message: str) -> Response:
    body = {"error": {"name": name, "message": message}, "status": status}
    return json_response(status, encode_struct(body))
