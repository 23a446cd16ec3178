"""Calls an endpoint: builds the request of a re-entry, signs it, limits its time and its
answer, and names what went wrong.
"""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING

import msgspec

from stephttp._wire import call_signatures, stored_state
from stephttp._wire.call_signatures import request_target
from stephttp._wire.ids import ulid_number
from stephttp._wire.signatures import sign
from stephttp._wire.stored_state import RESENT_AFTER, CallId
from stephttp.engine.logs import log_event
from stephttp.engine.model.call import EndpointCall
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import CallFailure, FailureKind
from stephttp.engine.model.settings import FEATURES, Settings
from stephttp.engine.model.timer import RESUME
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.outbound.client import Client, Sender
from stephttp.engine.outbound.connection import (
    DecodingError,
    ExchangeError,
    HTTPRequest,
    RemoteProtocolError,
    TooLarge,
    decoded,
)
from stephttp.engine.outbound.egress import Egress
from stephttp.engine.outbound.function_call import function_request
from stephttp.engine.outbound.signed_bytes import signed_bytes
from stephttp.engine.outbound.under_way import Heard, Processes, UnderWay
from stephttp.engine.rules.answers import HTTPResponse, asks_first

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger("stephttp.engine.executor")

_HEADER_TEXT = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_LOOK_AGAIN = 0.05
"""Seconds."""
_KEEP_ALIVE = 1.0
"""Seconds. Shorter than what servers keep idle connections for, so that a re-entry does not meet
one that is just being closed."""


class EndpointCaller:
    """Sends re-entries. One for the life of an engine.

    The state of a run goes along for one delivery only: to the process of the application, if just
    one is known, which takes it once. Another one, and a second delivery, ask for it.

    Args:
        settings: limits, timeouts and keys.
        clock: for the signature's time.
        rng: for request ids.
        transport: what carries the requests; by default real connections, to where the settings
            allow them.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        rng: Random,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._processes = Processes()
        self._under_way = UnderWay()
        self._sender: Sender
        if transport is None:
            egress, timeout = Egress.of(settings), settings.connect_timeout
            self._sender = Client(
                egress, timeout, settings.concurrency, _KEEP_ALIVE, settings.ca_file
            )
        else:
            from stephttp.engine.outbound.in_process import InProcess  # httpx2 is slow to import

            self._sender = InProcess(transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    def note_process(self, origin: str, process: str) -> None:
        """Note the process by which an application was heard of."""
        self._processes.note(origin, process, self._clock.monotonic())

    def hear(self, run_id: str, call: CallId) -> Heard:
        """Note that an SDK works on a call. Returns whether it may; see `under_way`."""
        return self._under_way.hear(run_id, call, self._clock.monotonic())

    async def admit(self, run_id: str, call: CallId) -> Heard:
        """Do the same, and wait as long as it is not sure."""
        while (heard := self.hear(run_id, call)) is Heard.UNSURE:
            await self._clock.wait_for(_LOOK_AGAIN)
        return heard

    def forget(self, call: EndpointCall) -> bool:
        """Wait for a call no more. Returns whether an SDK was heard of that works on it."""
        return self._under_way.forget((call.run_id, call.step_id))

    async def call(self, call: EndpointCall, *, bare: bool = False) -> HTTPResponse | CallFailure:
        """Call the endpoint, and return its answer, or a `CallFailure` if it cannot be read.

        Args:
            bare: without the headers that make it a re-entry.
        """
        limit = self._settings.max_response
        if call.function is not None:
            now_ms, now_s = self._clock.now_ms(), int(self._clock.now())
            request_id, trace = new_ulid(now_ms, self._rng), traceparent(call)
            request = await function_request(
                call, call.function, self._settings, now_s, request_id, trace
            )
        else:
            receiver = ""
            if call.state is not None:
                receiver = self._processes.only(call.domain, self._clock.monotonic())
            if not receiver:
                call = msgspec.structs.replace(call, state=None)
            # Unchanged: the endpoint must see the same request as the first time.
            target, content = request_target(call.path, call.query), _content(call)
            bare_headers = {"user-agent": "Inngest"}
            headers = bare_headers if bare else self._headers(call, target, content, receiver)
            again = None if bare else partial(self._without_state, call)
            request = HTTPRequest(
                call.method, call.domain, target, headers, content, not call.unanswered, again
            )
        try:
            async with asyncio.timeout(self._settings.call_timeout):
                answer = await self._sender.send(request, limit)
            self.note_process(call.domain, answer.header(stored_state.PROCESS))
            return decoded(answer, limit) if answer.header("content-encoding") else answer
        except (DecodingError, TimeoutError) as error:
            # The endpoint was reached, and may take as long each time it is called.
            return _failure(FailureKind.COUNTED, call, error)
        except TooLarge:
            message = f"the endpoint's answer is larger than {limit} bytes"
            return CallFailure(FailureKind.FINAL, "AnswerError", message)
        except ExchangeError as error:
            if error.broken:
                kind = self._kind_of_break(call)
                return msgspec.structs.replace(_failure(kind, call, error), times=error.broken)
            if isinstance(error, RemoteProtocolError):  # something that does not speak HTTP
                return _failure(FailureKind.FOREIGN, call, error)
            return _failure(FailureKind.TRANSIENT, call, error)
        except OSError as error:
            return _failure(FailureKind.TRANSIENT, call, error)
        except ValueError as error:
            return _failure(FailureKind.FINAL, call, error)

    def _kind_of_break(self, call: EndpointCall) -> FailureKind:
        """Return what it means that a connection broke: an SDK that would have asked for the state,
        and did not, was not reached, so its handler cannot be what ends the process."""
        unheard = not self._under_way.may_be_at_work((call.run_id, call.step_id))
        return FailureKind.FOREIGN if unheard and asks_first(call.sdk) else FailureKind.BROKEN

    async def _without_state(self, call: EndpointCall) -> HTTPRequest:
        """Return the request that is sent where the first may have been received and lost. It
        supersedes the first."""
        if self._under_way.may_be_at_work((call.run_id, call.step_id)):
            self._under_way.forget((call.run_id, call.step_id))
            await self._clock.wait_for(RESENT_AFTER)
        call = msgspec.structs.replace(call, state=None)
        target, content = request_target(call.path, call.query), _content(call)
        headers = self._headers(call, target, content)
        return HTTPRequest(call.method, call.domain, target, headers, content)

    def _headers(
        self, call: EndpointCall, target: str, content: bytes, receiver: str = ""
    ) -> dict[str, str]:
        content_type = call.content_type.strip()
        keys, now = self._settings.signing_keys, int(self._clock.now())
        request_id = new_ulid(self._clock.now_ms(), self._rng)
        key, since = (call.run_id, call.step_id), self._clock.monotonic()
        self._under_way.send(key, request_id, receiver, since)
        headers = {
            "user-agent": "Inngest",
            "accept-encoding": "gzip",
            "content-type": content_type
            if _HEADER_TEXT.fullmatch(content_type)
            else "application/json",
            "x-run-id": call.run_id,
            "x-request-id": request_id,
            stored_state.DELIVERY: request_id,  # proxies change the other one
            "x-inngest-signature": sign(keys[0], signed_bytes(call), now) if keys else "",
            "x-inngest-generation-id": str(call.attempt + 1),
            "x-stephttp-attempt": str(call.attempt),
            "x-inngest-job-id": call.job_id,
            "x-inngest-req-version": str(call.request_version),
            "traceparent": traceparent(call),
            **({} if call.step_id == RESUME else {"x-inngest-step-id": call.step_id}),
            **({stored_state.UNANSWERED: str(call.unanswered)} if call.unanswered else {}),
            **({"x-inngest-force-step-plan": "true"} if call.plan else {}),
            **self._state_headers(call, receiver),
        }
        if keys:
            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
            headers[call_signatures.SIGNATURE] = call_signatures.sign_call(
                keys[0], now, call.method, target, pairs, content
            )
        return headers

    def _state_headers(self, call: EndpointCall, receiver: str) -> dict[str, str]:
        """Return the headers that go with the state of a run."""
        if call.state is None:
            return {}
        headers = {
            stored_state.SIZE: str(len(call.state.memos)),
            stored_state.FEATURES: FEATURES,
            stored_state.RECEIVER: receiver,
            stored_state.SENT: str(self._clock.now_ms()),
        }
        if call.state.failures:
            headers[stored_state.FAILURES] = call.state.failures
        return headers


def traceparent(call: EndpointCall) -> str:
    """Return the trace of a call (https://www.w3.org/TR/trace-context/): each run has one, with the
    run's id. SDKs make spans only within a trace."""
    parent = sha256(f"{call.run_id} {call.job_id} {call.attempt}".encode()).hexdigest()[:16]
    return f"00-{ulid_number(call.run_id):032x}-{parent}-01"


def _content(call: EndpointCall) -> bytes:
    return call.body if call.state is None else call.body + call.state.memos


def _failure(kind: FailureKind, call: EndpointCall, error: Exception) -> CallFailure:
    detail = str(error) or type(error).__name__
    return CallFailure(
        kind, type(error).__name__, f"{call.method} {call.domain}{call.path}: {detail}"
    )


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
