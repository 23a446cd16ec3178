"""The turning points of a run as flows: finish, suspend, resume, conclude.

The adapters (ASGI, WSGI) call them with neutral requests and responses and drive them with
the driver they have.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from stephttp._client import endpoints, results
from stephttp._client import events as outgoing_events
from stephttp._client.drivers import Flow
from stephttp._client.endpoints import (
    CheckpointNewRunRequest,
    CheckpointRun,
    IdempotencyClaim,
    NewAPIRunData,
    RunEvent,
)
from stephttp._client.flow import Call, Invoke, Keys, send
from stephttp._client.origins import caller_of, origin_of
from stephttp._client.outbox import Item, Parcel
from stephttp._client.sealing import Sealer
from stephttp._core import capsule, codec, replies, signatures
from stephttp._core.codec import encode_struct
from stephttp._core.ids import CAPSULE, CAPSULE_NAME, hash_step_id, ulid_ms, ulid_number
from stephttp._core.memo import MemoKind
from stephttp._core.messages import Request, Response
from stephttp._core.ops import Op, OpCode, Userland
from stephttp._core.prefer import read_prefer
from stephttp._core.responses import AsyncRequest, AsyncResponseCustom, AsyncResponseToken
from stephttp._core.run import Run, Step, discovery_request
from stephttp._core.values import Event
from stephttp.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    ConfigurationError,
    NonRetriableError,
)
from stephttp.options import DEV_EVENT_KEY, Settings

if TYPE_CHECKING:
    from stephttp._client.journal import Journal

logger = logging.getLogger("stephttp")

_ROOT = "step"
"""The name of no step: a server that sends it asks for the whole handler."""
_ATTEMPT = b"x-stephttp-attempt"
"""On a re-entry by our engine: the exact number of attempts before (DESIGN 3.8)."""
_RUN_IS_OVER = frozenset({404, 409, 410})
_NEVER_ACCEPTED = frozenset({400, 413, 422})
RETRY_SOON = [(b"retry-after", b"5")]
_SERVER_HEADERS = frozenset(
    {
        b"x-inngest-signature",
        b"x-inngest-req-version",
        b"x-inngest-generation-id",
        b"x-inngest-job-id",
    }
)
"""Of these a server sends all; one is enough to know its call, even if a proxy ate the others."""


def claims_reentry(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request says that it comes from the server. It is then verified, or refused:
    it never starts a new run."""
    has_run_id = has_other = False
    for name, value in headers:
        if name == b"x-run-id":
            has_run_id = bool(value)
        elif name in _SERVER_HEADERS:
            has_other = True
    return has_run_id and has_other


@dataclass(slots=True)
class Resumed:
    """A run that a re-entry goes on with."""

    run: Run
    point: CheckpointRun
    """Where it goes on."""
    ours: bool
    """Whether it is our engine that calls."""
    raw_allowed: bool
    """Whether the server reads `raw` in a result (DESIGN 3.8)."""
    started_ns: int
    request_id: str = ""
    """The server's id of this call."""
    ended: bool = False
    """Whether the answer ends the run."""

    @property
    def attempt(self) -> int:
        """How many calls for the same purpose failed before; rather one too many."""
        return self.point.attempt


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What all runs of a provider share."""

    settings: Settings
    keys: Keys
    now_ns: Callable[[], int]
    rng: random.Random
    sealer: Sealer = field(default_factory=lambda: Sealer(()))

    def first_checkpoint(
        self,
        run: Run,
        request: Request,
        ops: list[Op],
        lease: int | None = None,
        claim: IdempotencyClaim | None = None,
    ) -> bytes:
        """Encode the checkpoint that tells the server of a run."""
        body = None if run.opts.omit_request_body else request.body or None
        event = RunEvent(
            NewAPIRunData(
                domain=origin_of(request, self.settings),
                method=request.method,
                path=request.path,
                fn=run.opts.id or request.endpoint,
                ip=caller_of(request, self.settings),
                content_type=request.header(b"content-type"),
                query_params=request.query,
                body=body,
            ),
            ts=self.now_ns() // 1_000_000,
        )
        return endpoints.checkpoint_new_run(
            CheckpointNewRunRequest(
                run.run_id,
                event,
                ops,
                run.declared_retries,
                endpoints.REQUEST_VERSION,
                lease=lease,
                claim=claim,
            )
        )

    def further_checkpoint(self, run: Run, ops: list[Op], lease: int | None) -> bytes:
        """Encode a checkpoint of a run that the server knows."""
        return endpoints.checkpoint_steps(run.run_id, ops, self.now_ns() // 1_000_000, lease)

    def remember(self, run: Run, request: Request, ops: Sequence[Op] = ()) -> Op:
        """The pseudo-step that keeps what of a request the server does not restore.

        Args:
            ops: what is reported with it; which steps have failed matters later on.
        """
        seal = self.sealer.seal(run.run_id)
        if seal is None and not self.settings.dev:
            allowed = self.settings.restored_headers
            if any(name in allowed and capsule.is_secret(name) for name, _ in request.headers):
                self.sealer.warn_secrets_left_out()
        hides = run.opts.omit_request_body and (self.settings.dev or seal is not None)
        kept = capsule.pack(
            request,
            self.settings.restored_headers,
            seal=seal,
            keep_open=self.settings.dev,
            hidden_body=request.body if hides and request.body else None,
            failing=[op.id for op in ops if op.op is OpCode.STEP_ERROR],
            carried=run.carried,
        )
        return Op(
            OpCode.STEP_RUN,
            CAPSULE,
            CAPSULE_NAME,
            CAPSULE_NAME,
            data=msgspec.Raw(encode_struct(kept)),
            userland=Userland(CAPSULE_NAME),
        )

    def _cannot_hide_body(self, run: Run, request: Request) -> bool:
        """Whether a body that must stay hidden from the server could only travel in the clear."""
        if self.settings.dev or not run.opts.omit_request_body or not request.body:
            return False
        return self.sealer.seal(run.run_id) is None

    def finished(
        self,
        run: Run,
        request: Request,
        response: Response,
        *,
        duration_ns: int,
        error: str | None,
    ) -> bytes:
        """A run that ended without waiting, as one checkpoint for the background."""
        ops = run.take_ops()
        complete = self.completed(response, duration_ns=duration_ns, error=error)
        checkpoint = self.first_checkpoint(run, request, [*ops, complete])
        if len(checkpoint) <= endpoints.MAX_CHECKPOINT_BYTES:
            return checkpoint
        logger.warning(
            "stephttp: the record of run %s has %d bytes, which is too many; bodies and results "
            "are left out of it", run.run_id, len(checkpoint),
        )  # fmt: skip
        request.body = response.body = b""
        for op in ops:
            op.data, op.opts = msgspec.UNSET, None
        complete = self.completed(response, duration_ns=duration_ns, error=error)
        return self.first_checkpoint(run, request, [*ops, complete])

    def completed(
        self, response: Response, *, duration_ns: int, error: str | None, exact: bool = False
    ) -> Op:
        """The op that ends a run whose caller has its answer.

        Args:
            exact: others will get this answer as well, from our engine.
        """
        return replies.run_complete(
            response, duration_ns=duration_ns, error=error, raw_allowed=exact, lossy=not exact
        )

    def deliver(
        self, batch: Sequence[tuple[Item, Parcel]]
    ) -> Flow[Sequence[APIStatusError | None]]:
        """Send checkpoints of the background: one alone, many as a batch.

        Returns:
            What became of each; `None`: taken.
        """
        if len(batch) == 1:
            item, parcel = batch[0]
            answer = yield from send(endpoints.post(parcel.path, parcel.body), self.keys, self.rng)
            item.answered(answer.body)
            return [None]
        call = endpoints.post_batch(parcel.body for _, parcel in batch)
        answer = yield from send(call, self.keys, self.rng)
        return endpoints.read_batch(answer, len(batch))

    def renew(self, run_ids: list[str], lease: int) -> Flow[list[str]]:
        """Say that this process lives. Returns the runs that are not its own any more."""
        answer = yield from send(endpoints.post_renewal(run_ids, lease), self.keys, self.rng)
        return endpoints.read_renewal(answer)

    def suspend(self, run: Run, request: Request, journal: Journal | None = None) -> Flow[Response]:
        """Hand a run that must wait to the server, and say what its caller gets."""
        if not request.path.startswith("/"):
            # A server appends the path to the origin, which must not become another one by that.
            return replies.error_answer(400, "a request that must wait needs a path")
        if journal is not None:
            yield from journal.hand_over()
        ops = [*(journal.unconfirmed if journal else ()), *run.take_ops()]
        if self._cannot_hide_body(run, request):
            logger.error(
                "stephttp: run %s cannot wait: omit_request_body keeps the request's body from the "
                "server, so it has to be encrypted for the re-entry: set INNGEST_SIGNING_KEY, and "
                "pip install 'stephttp[crypto]'", run.run_id,
            )  # fmt: skip
            return replies.error_answer(500, "this request cannot go on in the background")
        remember = self.remember(run, request, ops)
        # Our engine takes a run that it knows for an update, if it is told of the lease.
        lease = journal.lease_ms if journal else None
        later = [[remember, *ops]]
        token = journal.token if journal else ""
        try:
            if journal is None or not journal.opened or lease is not None:
                checkpoint = self.first_checkpoint(run, request, [remember, *ops], lease)
                later = []
                if len(checkpoint) > endpoints.MAX_CHECKPOINT_BYTES:
                    smallest = len(self.first_checkpoint(run, request, [remember]))
                    now, *later = endpoints.portions(ops, already=smallest)
                    first = [remember, *now]
                    checkpoint = self.first_checkpoint(run, request, first, lease)
                call = endpoints.post_new_run(checkpoint)
                answer = yield from send(call, self.keys, self.rng)
                token = endpoints.read_new_run(answer).token
            for portions in later:
                for portion in endpoints.portions(portions):
                    yield from self._post_steps(run, portion)
        except APIError as error:
            logger.error("stephttp: run %s must wait, but the server did not take it: %s",
                         run.run_id, error)  # fmt: skip
            return _not_taken(error)
        return (yield from self._answer_caller(run, request, token))

    def _answer_caller(self, run: Run, request: Request, token: str) -> Flow[Response]:
        """What the caller of a run that the server has taken gets."""
        kind = run.opts.async_response or self.settings.default_async_response
        location = results.result_url(self.settings, run.run_id, token)
        if isinstance(kind, AsyncResponseToken):
            return replies.token_answer(run.run_id, token)
        if isinstance(kind, AsyncResponseCustom):
            asked = AsyncRequest(
                request.method, request.path, request.query, request.headers, request.client,
                request.scheme, request.body, request.route, run.run_id, token, location,
            )  # fmt: skip
            answer = yield Invoke(kind.handler, asked)
            if not isinstance(answer, Response):
                raise ConfigurationError(
                    f"AsyncResponseCustom: the function must return a stephttp.Response, "
                    f"not {type(answer).__name__}"
                )
            return answer
        if kind.url is not None:
            location = kind.url(run.run_id, token)
        prefer = read_prefer(request.headers)
        if prefer.wait is not None:
            result = yield from self._wait_for_result(run.run_id, token, prefer.wait)
            if result is not None:
                return result
        elif not prefer.respond_async:
            return replies.redirect(location)
        return replies.accepted(run.run_id, token, location, prefer.applied)

    def _wait_for_result(self, run_id: str, token: str, seconds: int) -> Flow[Response | None]:
        """The result, if there is one `seconds` after the request came in."""
        began_ms = ulid_ms(run_id)
        left = seconds - (self.now_ns() / 1_000_000 - began_ms) / 1_000
        if left <= 0:
            return None
        try:
            answer = yield Call("GET", endpoints.output_path(run_id, token), timeout=left)
        except APIConnectionError:
            return None
        return (
            None if results.still_running(answer.status, answer.body) else results.relayed(answer)
        )

    def result_elsewhere(self, run_id: str, token: str) -> Response:
        """Tell a caller where the result of a run will be."""
        return replies.redirect(results.result_url(self.settings, run_id, token))

    def resume(self, request: Request) -> Flow[Resumed | Response]:
        """Load the run of a re-entry that was verified; a `Response` refuses it.

        `request` is changed into what the original caller sent.
        """
        run_id = request.header(b"x-run-id")
        request_id = request.header(b"x-request-id")
        ours = bool(request.header(_ATTEMPT))
        try:
            answer = yield from send(endpoints.get_actions(run_id), self.keys, self.rng)
            memos = endpoints.read_actions(answer)
        except APIStatusError as error:
            if error.status == 410:  # ended meanwhile; nothing is to be done (PROTOCOL 12.1)
                return replies.ops_answer([])
            if error.status == 404:
                return replies.refused(404, f"run {run_id} is not known to the server")
            return self.unavailable(ours, f"the state of run {run_id} cannot be loaded", error)
        except APIConnectionError as error:
            return self.unavailable(ours, f"the state of run {run_id} cannot be loaded", error)
        target = request.header(b"x-inngest-step-id")
        features = answer.features
        run = Run(run_id, memos, target=target if target not in ("", _ROOT) else None)
        run.failures = endpoints.read_failures(answer)
        point = CheckpointRun(
            run_id, stack=list(memos), signature=request.header(b"x-inngest-signature")
        )
        stored = run.memo_of(CAPSULE)
        kept = capsule.Capsule()
        if stored is not None and stored.kind is MemoKind.VALUE:
            try:
                kept = capsule.unpack(stored.raw, run_id, self.sealer.open)
            except ValueError as error:
                return replies.refused(400, f"run {run_id}: {error}")
        point.attempt = _attempt(request, run, kept.failing)
        # Ours counts the failures of each step, and knows its limit.
        run.attempt = 0 if "step-retries" in features else point.attempt
        if stored is not None:
            capsule.restore(request, kept)
            run.carried = kept.carried
        return Resumed(
            run,
            point,
            ours=ours,
            raw_allowed="raw-response" in features,
            started_ns=self.now_ns(),
            request_id=request_id,
        )

    def unavailable(self, ours: bool, what: str, error: APIError) -> Response:
        """The answer to a re-entry that cannot go on, because the server's API does not work.

        Our engine takes a 503 for what it is. A real server would count it as an attempt, and
        after the last one leave the run hanging, so it is asked to come again.
        """
        logger.error("stephttp: %s: %s", what, error)
        if ours:
            return replies.error_answer(503, f"{what}: {error}", headers=RETRY_SOON)
        op_id = hash_step_id(f"stephttp:again:{self.now_ns()}")
        return replies.come_again(503, what, RETRY_SOON, op_id)

    def flush(self, run: Run) -> Flow[None]:
        """Send the finished steps of a resumed run while its handler goes on.

        Raises:
            APIError: not all could be stored.

        Ended in whatever way: those that are not known to be stored are back with the run.
        """
        while ops := run.take_finished():
            for portion in endpoints.portions(ops):
                try:
                    yield from self._post_steps(run, portion)
                except BaseException:
                    run.put_back(ops[ops.index(portion[0]) :])
                    raise

    def _post_steps(self, run: Run, ops: list[Op]) -> Flow[None]:
        call = endpoints.post_steps(run.run_id, ops, self.now_ns() // 1_000_000)
        yield from send(call, self.keys, self.rng)

    def send_events(self, run_id: str, step: Step, events: list[Event]) -> Flow[list[str]]:
        """Send the events of a step; returns the internal id of each.

        Raises:
            ConfigurationError: there is no event key.
            APIError: they could not be sent.
        """
        key = self.settings.event_key or (DEV_EVENT_KEY if self.settings.dev else "")
        if not key:
            raise ConfigurationError(
                "event_key: none is configured, so no events can be sent; set INNGEST_EVENT_KEY, "
                "or INNGEST_DEV=1 for development"
            )
        now_ms = self.now_ns() // 1_000_000
        outgoing = outgoing_events.prepare(step.step_id, events, run_id, step.hash, now_ms)
        origin = self.settings.event_origin
        return (yield from outgoing_events.post(outgoing, origin, key, self.rng))

    def conclude(
        self,
        resumed: Resumed,
        response: Response,
        error: str | None = None,
        raised: BaseException | None = None,
    ) -> Flow[Response]:
        """Answer a re-entry whose handler has ended.

        Args:
            response: what the handler sent; of no matter when the run waits again.
            error: the exception that ended it, as text.
            raised: that exception itself; it may say whether and when to try again.

        Raises:
            APIError: finished steps could not be stored, so the server must call again.
        """
        run = resumed.run
        if run.suspended:
            return (yield from self._next_steps(resumed))
        # Only the handler says how many retries there are; our engine was told before.
        again = resumed.attempt < run.retries or (run.unreached and resumed.ours)
        again = again and response.status >= 500 and not isinstance(raised, NonRetriableError)
        later = codec.retry_after(raised, self.now_ns()) if again else None
        try:
            yield from self.flush(run)
        except APIStatusError as problem:
            if problem.status in _RUN_IS_OVER:
                return replies.ops_answer([])
            if problem.status not in _NEVER_ACCEPTED:
                raise
            logger.error("stephttp: run %s fails: %s", run.run_id, problem)
            response, again = replies.error_answer(500, f"a step was refused: {problem}"), False
        if not resumed.raw_allowed:
            _warn_of_lost_cookies(run, response)

        def result(response: Response) -> Response:
            complete = replies.run_complete(
                response,
                duration_ns=max(0, self.now_ns() - resumed.started_ns),
                error=error,
                raw_allowed=resumed.raw_allowed,
            )
            return replies.result_answer(complete, again=again, retry_after=later)

        reply = result(response)
        if len(reply.body) > endpoints.MAX_ANSWER_BYTES:
            message = (
                f"the response of a resumed handler has {len(reply.body)} bytes as JSON; "
                f"at most {endpoints.MAX_ANSWER_BYTES} can be delivered"
            )
            reply = result(replies.error_answer(500, message))
        resumed.ended = not again
        return reply

    def _next_steps(self, resumed: Resumed) -> Flow[Response]:
        run = resumed.run
        finished, waits = run.take_finished(), run.take_ops()
        if not finished and not waits and run.targets_unknown:
            return replies.unknown_step(run, again=resumed.attempt < run.retries)
        if not finished and not waits and not run.pending:
            # Nothing is scheduled after an empty answer: the run would hang (PROTOCOL 6.3).
            waits = [discovery_request(str(self.now_ns()))]
        reply = replies.ops_answer([*finished, *waits])
        if len(reply.body) > endpoints.MAX_CHECKPOINT_BYTES:
            run.put_back(finished)
            yield from self.flush(run)
            reply = replies.ops_answer(waits)
        return reply

    def verify(self, request: Request) -> Response | None:
        """Check that a re-entry comes from the server; a `Response` refuses it."""
        run_id = request.header(b"x-run-id")
        try:
            ulid_number(run_id)
        except ValueError:
            return replies.refused(400, f"x-run-id: {run_id!r} is not a ULID")
        if self.settings.dev:
            return None
        if not self.settings.keys:
            return replies.refused(
                401, "no signing key is configured, so this call cannot be verified; "
                "set INNGEST_SIGNING_KEY, or INNGEST_DEV=1 for development",
            )  # fmt: skip
        header = request.header(b"x-inngest-signature")
        now = self.now_ns() / 1_000_000_000
        if not signatures.verify(header, request.body, self.settings.keys, now):
            return replies.refused(401, "x-inngest-signature: missing, wrong or too old")
        return None


def _attempt(request: Request, run: Run, failing: Sequence[str]) -> int:
    """How many calls for the same purpose failed before this one.

    A real server tells only the generation: 1 for the first call of a queue item. But where a
    step failed before the run went async, the checkpoint was the first attempt (PROTOCOL 6.4).
    Whether this call still belongs to that item is certain only for a first generation that
    finds those steps done; elsewhere the higher number is taken: a failure that is delivered one
    attempt early is better than a run that never ends.
    """
    exact = request.header(_ATTEMPT)
    if exact.isdecimal():
        return int(exact)
    text = request.header(b"x-inngest-generation-id")
    generation = max(1, int(text)) if text.isdecimal() else 1
    unsure = generation > 1 or any(run.memo_of(step) is None for step in failing)
    return generation if failing and unsure else generation - 1


def _warn_of_lost_cookies(run: Run, response: Response) -> None:
    cookies = sum(name == b"set-cookie" for name, _ in response.headers)
    if cookies > 1:
        logger.warning(
            "stephttp: run %s sets %d cookies, of which this server can carry one",
            run.run_id, cookies,
        )  # fmt: skip


def _not_taken(error: APIError) -> Response:
    if isinstance(error, APIStatusError) and error.status == 413:
        return replies.error_answer(413, "the request and its steps are too large to be kept")
    if isinstance(error, APIStatusError) and 400 <= error.status < 500:
        return replies.error_answer(500, "this request cannot go on in the background")
    message = "this request has to go on in the background, which is not possible now"
    return replies.error_answer(503, message, headers=RETRY_SOON)
