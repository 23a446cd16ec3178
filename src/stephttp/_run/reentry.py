"""A call of the server, neutral to ASGI and WSGI: verified, loaded, continued, concluded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stephttp._client.background import TimerHandle
from stephttp._client.flow import Flow, Until
from stephttp._core import replies
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.failures import describe
from stephttp._core.plain_server import Mode, PlainCall
from stephttp._core.run import Run
from stephttp._run import plain_calls
from stephttp._run.current import CurrentCall
from stephttp._run.flushing import Flushes
from stephttp._run.hooks import Hooks, as_flow
from stephttp._run.reentry_failures import unavailable
from stephttp._run.reentry_guard import Admission
from stephttp._run.resumed_run import Resumed
from stephttp._run.resuming import conclude, resume
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire import stored_state
from stephttp._wire.http import PLAIN_TEXT, Body, Request, Response, wants_events
from stephttp.errors import APIError
from stephttp.middleware import CallEnd

if TYPE_CHECKING:
    from stephttp._run.run_stream import RunStream

logger = logging.getLogger("stephttp")

MAX_RESULT_BYTES = 4 * 1024 * 1024
"""The largest response body of a resumed handler; a server reads 8 MiB of JSON
(docs/protocol.md 10)."""

FLUSH_AFTER = 0.03
"""Seconds for which a finished step may be unsaved while its handler runs, where the answer can
carry it. Most calls are over by then, so their steps need no requests of their own."""
_QUESTIONS = 5
"""How often the engine is asked whether this call still counts, each with the attempts of `send`,
until the handler is ended: what it does cannot be stored."""
HEARD_WITHIN = 10.0
"""Seconds after which the answer to a call may be lost, because something on the way waits no
longer. Steps that finished just before are then sent by themselves."""

_FAILED = 500
"""From this status on, a response may be what a framework makes of an exception, which follows."""


class Reentry:
    """One re-entry. `open`, call the application if that returns a run, `conclude`; then `close`.

    Args:
        runtime: what it shares with others.
        request: the server's own; `open` changes it into what the original caller sent.
        received: its body, as far as it was read; see `body_of`.
    """

    __slots__ = (
        "_admission", "_flushes", "_lock", "_over", "_scope", "_timer", "body", "hooks",
        "identity", "request", "response", "resumed", "runtime", "surroundings",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, request: Request, received: Body) -> None:
        self.runtime = runtime
        # Steps may end in several threads at once, and a task may begin at once.
        self._lock = threading.RLock()
        self._flushes: Flushes | None = None
        """What sends finished steps, if any of them cannot wait for the answer."""
        self._timer: TimerHandle | None = None
        self._over = False
        """Whether the handler has ended, so that the answer carries what is left."""
        self._scope: RunScope | None = None
        self.hooks: Hooks | None = None
        """The user's middleware, if there is any."""
        self.request = request
        self.identity: tuple[Any, ...] = ()
        """What tells the original request from others, once it is restored; see `HandlerCall`."""
        self.surroundings: Mapping[str, Any] = {}
        """The ASGI scope or the environ that the application is called with; see `HandlerCall`."""
        self.resumed: Resumed
        self.response = Response(500, list(PLAIN_TEXT))
        """What the handler answers, but for its body."""
        self.body = Body(MAX_RESULT_BYTES)
        self._admission = Admission(runtime, request, received)

    def open(self) -> Flow[Run | Response]:
        """Wait until no other re-entry of the run is at work, and load it.

        Returns:
            The run, or what refuses this re-entry.
        """
        admission = self._admission
        refusal = yield from admission.enter()
        if refusal is not None:
            return refusal
        checkpoints = self.runtime.checkpoints
        resumed = yield from resume(checkpoints, self.request, admission.state, admission.doubt)
        if isinstance(resumed, Response):
            return resumed
        self.resumed = resumed
        resumed.heard_ns = admission.heard_ns
        refusal = None if resumed.plain is None else (yield from self._refuse_beside(resumed.plain))
        return resumed.run if refusal is None else refusal

    def _refuse_beside(self, call: PlainCall) -> Flow[Response | None]:
        """Return what refuses a call by a server that is not ours, because of those beside it."""
        if call.mode is Mode.DISCOVER and self._admission.contended:
            return plain_calls.nothing(self.runtime.checkpoints)  # P7: the next one finds more
        if call.section:
            busy = yield from self._admission.take(f"section of {self.run_id}")
            if busy:  # what was loaded is older than what the other delivery has done
                return replies.error_answer(503, "this call was delivered twice")
        return None

    @property
    def run_id(self) -> str:
        """The run's ULID."""
        return self.resumed.run.run_id

    @property
    def attempt(self) -> int:
        """How many calls for the same purpose failed before this one."""
        return self.resumed.point.attempt

    @property
    def started_ns(self) -> int:
        """When this call began, in nanoseconds since the epoch."""
        return self.resumed.started_ns

    def run_made(self, scope: RunScope) -> None:
        """Take the scope in which the handler is about to be called; see `HandlerCall`."""
        self._scope = scope
        scope.new_stream = self._open_stream
        if self.resumed.call_id is not None:
            scope.fence = self
        if self.runtime.settings.middleware:
            request_id = self.resumed.request_id
            scope.hooks = self.hooks = Hooks.of(scope, self.request, request_id, self.attempt)
        if self.runtime.watch is not None:
            self.runtime.watch(self, scope)

    def _open_stream(self) -> RunStream:
        """Begin to take what the handler pushes."""
        from stephttp._run.run_stream import begin_again

        assert self._scope is not None, "`close` comes after the handler"
        return begin_again(self._scope, self.resumed)

    def flush_soon(self) -> None:
        """Send finished steps soon, while the handler runs. Called when a step may have ended."""
        run, scope = self.resumed.run, self._scope
        count = run.finished_count
        if not count or run.target is not None:
            return
        seconds = 0.0 if scope is None else self._patience(scope.checkpointing, count)
        if scope is None or not seconds:
            self._flush_now()
            return
        with self._lock:
            if self._timer is None and not self._over:
                self._timer = scope.later(seconds, self._flush_now)

    def _patience(self, mode: Checkpointing, count: int) -> float:
        """Return for how many seconds `count` finished steps may wait for the answer to carry
        them."""
        if not self.resumed.with_result or self.resumed.unanswered:
            return 0.0
        if mode.buffered_steps is not None and count >= mode.buffered_steps:
            return 0.0
        limit = mode.max_interval
        return FLUSH_AFTER if limit is None else min(FLUSH_AFTER, limit / timedelta(seconds=1))

    def _flush_now(self) -> None:
        """Send finished steps now. May be called in any thread."""
        with self._lock:
            self._stop_timer()
            if not self._over:
                self._flushes_here().start()

    def _flushes_here(self) -> Flushes:
        if self._flushes is None:
            self._flushes = Flushes(self.runtime, self.resumed, self._lock)
        return self._flushes

    @property
    def closed(self) -> bool:
        """Whether the engine has to be asked before a step begins; see `Fence`."""
        silent_ns = self.runtime.now_ns() - self.resumed.heard_ns
        return not 0 <= silent_ns <= stored_state.ASKS_AFTER * 1_000_000_000

    def ask(self) -> Flow[None]:
        """Store the finished steps, or just ask; the run then knows if it is over."""
        for _ in range(_QUESTIONS):
            with self._lock:
                if self._over:
                    return
                self._stop_timer()
                flushing = self._flushes_here().start_question()
            yield Until(flushing.outcome)
            if self.resumed.run.over or not self.closed:
                return
        logger.error(
            "stephttp: run %s: the engine does not say whether this call still counts; its handler "
            "is ended before the next step, and called again later", self.run_id,
        )  # fmt: skip
        self.resumed.run.stop()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def conclude(self, error: BaseException | None) -> Flow[Response]:
        """Return the answer to the server. Called when the handler has ended."""
        checkpoints, run = self.runtime.checkpoints, self.resumed.run
        with self._lock:
            self._over = True
            self._stop_timer()
        if self._flushes is not None:
            # First wait for it: what it could not store is then back with the run, for the answer.
            yield from self._flushes.end()
        took_ns = self.runtime.now_ns() - self.resumed.started_ns
        # A server that calls again no longer waits for this call.
        given_up = self._admission.contended
        late = given_up or took_ns >= HEARD_WITHIN * 1_000_000_000
        self.resumed.heard = not (late or self.resumed.unanswered)
        scope = self._scope
        if scope is not None:
            scope.new_stream = None
            if scope.stream is not None:  # what was pushed comes before the end of the run
                yield from scope.stream.finish()
        text = None if error is None else describe(error)
        response, hooks = self._result(error), self.hooks
        failures = scope.final_failures if scope is not None else None
        final = failures is not None and failures.explain(error)
        raised = error
        if raised is None and response.status >= _FAILED and scope is not None and scope.hidden:
            raised = scope.hidden.found()
        if hooks is not None:
            yield from as_flow(hooks.close(error))
            if not run.suspended:
                yield from as_flow(hooks.before_response(response))
        try:
            reply = yield from conclude(
                checkpoints, self.resumed, self.request, response, text, raised, final, scope
            )
        except APIError as problem:
            what = f"run {run.run_id}: finished steps could not be stored"
            comes = self.resumed.comes_again
            response = reply = unavailable(checkpoints, comes, what, problem)
            error = error or problem
        if hooks is not None:
            if run.suspended:
                response = reply
                yield from as_flow(hooks.before_response(reply))
            yield from as_flow(hooks.over(CallEnd(response, error, self.resumed.ended)))
        tells_end = self.resumed.ended and not self.resumed.keeps_streams
        if tells_end and scope is not None and (scope.stream or wants_events(self.request)):
            yield from (scope.stream or self._open_stream()).tell_end(response)
        return reply

    def close(self) -> None:
        """Stop what is under way, and let the next re-entry of the run in."""
        with self._lock:
            self._over = True
            self._stop_timer()
        if self._flushes is not None:
            self._flushes.cancel()
        # The scope leads back here, and so do the frames of what was raised and the stream: all of
        # them would be left to the garbage collector.
        if self._scope is not None:
            self._scope.final_failures = self._scope.hidden = None
            self._scope.stream = self._scope.new_stream = None
            self._scope = None
        self._admission.leave()

    def is_answered(self, scope: RunScope, call: CurrentCall) -> bool:
        """Return whether the response that has come to its end is the run's result already, before
        the application returns: nothing that it still does can change it."""
        good = self.response.status < _FAILED and not self.body.overflown
        return good and not scope.run.suspended and not call.may_lose_writes()

    def _result(self, error: BaseException | None) -> Response:
        if self.body.overflown:
            return replies.error_answer(
                500, f"the response's body has {self.body.size} bytes; a resumed handler's may "
                f"have {MAX_RESULT_BYTES}",
            )  # fmt: skip
        if error is not None and not self.body.complete:
            return Response(500, list(PLAIN_TEXT), b"Internal Server Error")
        self.response.body = self.body.join()
        return self.response
