"""`Prefer: wait=30`: the SDK waits for the result of a run in the first request instead of
redirecting.
"""

from __future__ import annotations

from stephttp._client.flow import Flow
from stephttp._run import result_path
from stephttp._run.asking import Asking, Outcome
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.second_look import look
from stephttp._run.suspend import Room
from stephttp._wire.http import Response
from stephttp._wire.ids import ulid_ms
from stephttp.errors import APIConnectionError


def wait(
    checkpoints: Checkpoints, run_id: str, token: str, seconds: int, room: Room
) -> Flow[Response | None]:
    """Return the result, if there is one `seconds` after the request came in."""
    began_ms = ulid_ms(run_id)
    left = seconds - (checkpoints.now_ns() / 1_000_000 - began_ms) / 1_000
    if left <= 0:
        return None
    with room(left) as held:
        asking = Asking(checkpoints.keys, run_id, token, held, lambda: checkpoints.now_ns() / 1e9)
        while True:
            try:
                answer = yield asking.call()
                outcome = asking.read(answer.status, answer.headers, answer.body)
                if outcome is Outcome.RESULT:
                    return result_path.relayed(answer)
                if outcome is Outcome.UNSURE:
                    given = result_path.relayed(answer)
                    seen = yield from look(run_id, given, checkpoints.keys, checkpoints.rng)
                    if seen is not None:
                        return seen
                    outcome = asking.failed()
            except APIConnectionError as error:
                outcome = asking.failed(error)
            if isinstance(outcome, Outcome):
                return None
            yield outcome
