"""Requests about runs from outside of them: `get_run`, `cancel`, `result`, `send_signal`;
`RunInfo`. Pure readers, and flows.
"""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from stephttp._client import api_calls
from stephttp._client.api_calls import JSON_HEADERS
from stephttp._client.deadline import within
from stephttp._client.flow import Answer, APICall, Calling, Flow, Keys, Pause, send
from stephttp._client.outgoing_events import Outgoing
from stephttp._client.run_results import RunResult, of_handler, read_output
from stephttp._core.encoding import encode_value
from stephttp._core.tool_types import Event
from stephttp._wire.http import joined
from stephttp._wire.ids import ulid_number
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import (
    APIStatusError,
    ResultTimeoutError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    SignalNotAwaitedError,
)

T = TypeVar("T")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
"""Seconds between two questions whether a run has ended."""
_EMPTY_ANSWERS = 5
"""How often a run that has ended may have no output yet, with longer and longer pauses."""

RunStatus = Literal["running", "waiting", "completed", "failed", "cancelled"]


class RunInfo(Struct, frozen=True, kw_only=True):
    """What the server knows of a run.

    Attributes:
        id: a ULID.
        status: an Inngest server says `running` of runs that wait, too.
        endpoint: its name; empty where the server does not say it.
        started_at: when its request came.
        ended_at: when it ended; `None` while it has not.
        error: why it failed, where the server says that.
    """

    id: str
    status: RunStatus
    endpoint: str
    started_at: datetime
    ended_at: datetime | None = None
    error: ErrorInfo | None = None


class _Run(Struct):
    run_id: str
    status: str
    run_started_at: datetime
    ended_at: datetime | None = None
    function: str = ""
    error: ErrorInfo | None = None
    waiting_for: list[Raw] = []
    output: str = ""

    @property
    def info(self) -> RunInfo:
        status: Any = self.status.lower()
        return RunInfo(
            id=self.run_id,
            status="waiting" if status == "running" and self.waiting_for else status,
            endpoint=self.function,
            started_at=self.run_started_at,
            ended_at=self.ended_at,
            error=self.error,
        )


class _RunAnswer(Struct):
    data: _Run | None = None


class _Signalled(Struct):
    run_id: str


class _SignalAnswer(Struct):
    data: _Signalled


_run_answer = msgspec.json.Decoder(_RunAnswer)
_signal_answer = msgspec.json.Decoder(_SignalAnswer)


def prepared_event(
    name: str, data: Mapping[str, Any] | None, id: str, ts: int, now_ms: int
) -> Outgoing:
    """Return an event, ready to be sent as often as it takes.

    Raises:
        ValueError: it is not acceptable.
    """
    if not name:
        raise ValueError("name must not be empty")
    if name.startswith("inngest/"):
        raise ValueError(f"name: {name!r}: 'inngest/' is for the server's own")
    if data is not None and not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"data must be a mapping, not {data!r}")
    event = Event(name=name, data=dict(data or {}), id=id, ts=ts)
    seed = f"{now_ms},{base64.b64encode(os.urandom(10)).decode()}"
    return Outgoing([event], encode_value([event], "data", None), seed)


def send_signal(name: str, data: bytes, keys: Keys, rng: random.Random) -> Flow[str]:
    """Send a signal. Returns the id of the run that waited for it.

    Raises:
        SignalNotAwaitedError: no run does.
        APIError: it could not be sent.
    """
    body = msgspec.json.encode({"signal": name, "data": Raw(data)})
    call = APICall("POST", "/v1/signals", body, JSON_HEADERS)
    try:
        answer = yield from send(call, keys, rng)
    except APIStatusError as error:
        if error.status != 404:
            raise
        message = f"signal {name!r}: no run waits for it"
        raise SignalNotAwaitedError(message, error.status, error.body) from None
    return api_calls.read(_signal_answer, answer, "POST /v1/signals").data.run_id


def cancel(run_id: str, keys: Keys, rng: random.Random) -> Flow[None]:
    """End a run as cancelled.

    Raises:
        RunNotFoundError: the server does not have it.
        APIError: it could not be asked.
    """
    yield from _of_run(APICall("DELETE", _path(run_id), None, JSON_HEADERS), run_id, keys, rng)


def get_run(run_id: str, keys: Keys, rng: random.Random) -> Flow[RunInfo]:
    """Ask for a run.

    Raises:
        RunNotFoundError: the server does not have it.
        APIError: it could not be asked.
    """
    run = yield from _ask(run_id, keys, rng)
    return run.info


def result(
    run_id: str,
    timeout: float | None,
    keys: Keys,
    rng: random.Random,
    monotonic: Callable[[], float],
) -> Flow[RunResult]:
    """Wait for the end of a run, and ask for its answer.

    Args:
        timeout: seconds, those of slow answers included; 0 asks once, for as long as that takes.
        monotonic: a clock that never jumps, in seconds.

    Raises:
        RunNotFoundError: the server does not have it.
        RunFailedError: it has failed.
        RunCancelledError: it was cancelled.
        ResultTimeoutError: it has not ended in time.
        APIError: the server could not be asked.
    """
    if timeout is None:
        return (yield from _result(run_id, keys, rng))
    late = ResultTimeoutError(f"run {run_id} has not ended within {timeout:g} s")
    if timeout <= 0:
        return (yield from _result(run_id, keys, rng, late))
    end = monotonic() + timeout
    return (yield from within(_result(run_id, keys, rng), lambda: end - monotonic(), late))


def _result(
    run_id: str, keys: Keys, rng: random.Random, not_yet: ResultTimeoutError | None = None
) -> Calling[RunResult]:
    """Ask until a run has ended, or once, if an error for a run that has not is given."""
    pause = _FIRST_PAUSE
    while (run := (yield from _ask(run_id, keys, rng))).status.lower() == "running":
        if not_yet is not None:
            raise not_yet
        yield Pause(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    for attempt in range(_EMPTY_ANSWERS):  # a real server stores the output apart, a little later
        if run.output or keys.features or not_yet is not None:
            break
        yield Pause(_FIRST_PAUSE * 2**attempt)
        run = yield from _ask(run_id, keys, rng)
    if run.status.lower() == "cancelled":
        raise RunCancelledError(f"run {run_id} was cancelled")
    answer = yield from _answer_of(run, keys, rng)
    if run.status.lower() == "failed":
        error = run.error or ErrorInfo()
        reason = ": ".join(part for part in (error.name, error.message) if part)
        raise RunFailedError(f"run {run_id} has failed{reason and f' ({reason})'}", answer)
    return answer


def _answer_of(run: _Run, keys: Keys, rng: random.Random) -> Calling[RunResult]:
    """Return what a run that has ended answered."""
    if keys.supports("idempotency"):
        answer = yield from send(api_calls.get_outcome(run.run_id, 0, cookies=False), keys, rng)
        outcome = api_calls.read_outcome(answer)
        headers = joined((name.lower(), value) for name, value in outcome.headers)
        return RunResult(status_code=outcome.status, headers=headers, body=outcome.body)
    return read_output(base64.b64decode(run.output))


def ended(
    run_id: str, keys: Keys, rng: random.Random
) -> Calling[tuple[RunStatus, RunResult | None, bytes] | None]:
    """Ask an Inngest server how a run has ended; `None`: it has not.

    Returns:
        Its status, the answer of its handler, if that is what ended it, and the whole output.

    Raises:
        RunNotFoundError: the server does not have it.
        APIError: it could not be asked.
        ValueError: it has said something else than an Inngest server.
    """
    run = yield from _ask(run_id, keys, rng)
    status = run.info.status
    if status in ("running", "waiting"):
        return None
    output = base64.b64decode(run.output)
    return status, of_handler(output), output


def _ask(run_id: str, keys: Keys, rng: random.Random) -> Calling[_Run]:
    call = APICall("GET", _path(run_id), None, JSON_HEADERS)
    answer = yield from _of_run(call, run_id, keys, rng)
    run = api_calls.read(_run_answer, answer, str(call)).data
    if run is None:  # a plain Inngest server says that with a 200
        raise RunNotFoundError(f"run {run_id}: the server does not have it", 404, answer.body)
    return run


def _of_run(call: APICall, run_id: str, keys: Keys, rng: random.Random) -> Calling[Answer]:
    try:
        return (yield from send(call, keys, rng))
    except APIStatusError as error:
        if error.status != 404:
            raise
        message = f"run {run_id}: the server does not have it"
        raise RunNotFoundError(message, error.status, error.body) from None


def _path(run_id: str) -> str:
    try:
        ulid_number(run_id)
    except ValueError:
        raise ValueError(f"run_id: {run_id!r} is not a ULID") from None
    return f"/v1/runs/{run_id.upper()}"
