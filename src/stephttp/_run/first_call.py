"""A request from outside: the sync phase of a run, neutral to ASGI and WSGI.

The adapters subclass it: they call the application, and feed what passes by.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any

from stephttp._client.api_calls import NEW_RUN
from stephttp._client.flow import Flow, Invoke
from stephttp._client.outbox_item import Item, Parcel
from stephttp._core import replies
from stephttp._core.failures import describe
from stephttp._core.run import Run
from stephttp._run.hooks import Hooks, as_flow
from stephttp._run.idempotency import Claimed, claim, scope_of
from stephttp._run.journal import Journal
from stephttp._run.passing import PLAIN_TEXT, Body
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._run.suspend import suspend
from stephttp._wire.http import Headers, Request, Response
from stephttp.errors import CannotWaitError
from stephttp.middleware import CallEnd

logger = logging.getLogger("stephttp")


class LiveCall(ABC):
    """One request from outside.

    Args:
        runtime: what it shares with others.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_ended",
        "_headers",
        "_journal",
        "_keyed",
        "_left",
        "_opened",
        "_run",
        "_run_scope",
        "_status",
        "_stored",
        "run_id",
        "runtime",
        "started_ns",
    )

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.started_ns = runtime.now_ns()
        self.run_id = runtime.new_run_id(self.started_ns)
        self._run: Run
        self._run_scope: RunScope | None = None
        """What belongs to a run. Most requests come to no step, and never need it."""
        self._opened: RunScope | None = None
        """The same, once it is ready for the handler."""
        self._status = 0
        self._headers: Headers = []
        self._begun = self._left = False

    def open(self) -> RunScope:
        """The run's scope. May be called in any thread."""
        return self._opened or self._open()

    def _open(self) -> RunScope:
        with self.runtime.opening:
            if self._opened is None:
                scope = self._make_scope()
                # The event loop sets these, and then looks for the scope without a lock: it has
                # seen that, or we see these. Other threads get the scope only after that.
                if self._begun:
                    self._run.response_began()
                if self._left:  # what goes on after the answer goes on as if there were no steps
                    self._run.end()
                    self._let_go(scope)
                self._opened = scope
            return self._opened

    def _make_scope(self) -> RunScope:
        self._answer: Body | None = None
        """What the handler answers, if that is to be kept."""
        self._journal: Journal | None = None
        self._stored: Claimed | None = None
        self._keyed = self._ended = False
        self._run = run = Run(self.run_id)
        if self.runtime.settings.track_all_endpoints:
            run.track()
        if self._method() == "HEAD":
            run.refuse_waits("the answer to HEAD has no body that could carry the result")
        scope = self._new_scope(run)
        scope.claimer, scope.on_first_step = self._claim_late, self._first_step
        self._run_scope = scope
        return scope

    def _let_go(self, scope: RunScope) -> None:
        """No handler goes on with this run. We hold the scope: if it held us as well, all of the
        request would be left to the garbage collector."""
        scope.claimer = scope.on_first_step = None
        scope.close(None)

    @abstractmethod
    def _method(self) -> str:
        """Of the request."""

    @abstractmethod
    def _new_scope(self, run: Run) -> RunScope:
        """What belongs to the run, where this handler lives."""

    @property
    @abstractmethod
    def _asked(self) -> Body:
        """The request's body, as far as it was read."""

    @abstractmethod
    def _request(self, body: bytes) -> Request:
        """The request, with this body."""

    @abstractmethod
    def _route(self) -> str:
        """The template of the request's route, once it is known (see `_adapters.routes`)."""

    @abstractmethod
    def _has_all(self) -> bool:
        """Whether the whole body was read, as far as anybody can know."""

    @abstractmethod
    def _read_ahead(self, _: Any = None) -> Any:
        """Read the rest of the body before the handler does; False if the caller left.

        A coroutine under ASGI.
        """

    @abstractmethod
    def _give_up(self) -> BaseException:
        """What ends a handler whose caller left while its body was read ahead."""

    def _first_step(self) -> None:
        """A step is about to run: from now on there is something that could get lost."""
        scope = self.open()
        if scope.checkpointing.at_end_only or self._ended:
            return
        if self._journal is None:
            self._journal = self._new_journal()
        self._journal.mode = scope.checkpointing
        scope.on_record = self._journal.note
        self._journal.begin()

    def _new_journal(self) -> Journal:
        scope = self.open()
        return self.runtime.journal(self._run, self._known_request, scope.checkpointing)

    def _named_request(self) -> Request:
        """The request as far as it was read, with its route if that is to name the endpoint."""
        request = self._request(self._asked.join())
        if not self._run.opts.id:
            request.route = self._route()
        return request

    def _known_request(self) -> Request | None:
        """The request, once its body is complete."""
        if not self._ended and (self._asked.overflown or not self._has_all()):
            return None
        return self._named_request()

    def _claim_at_once(self) -> Flow[bool]:
        """Claim the key that the request itself carries, if it does.

        Returns:
            Whether the handler is to be called. If not, what to answer is `_stored_answer`, unless
            the caller has left.
        """
        key = self.runtime.idempotency_key(self._request(b""))
        if key is None:
            return True
        scope, goes_on = self.open(), False
        scope.claimer = None
        try:
            if (yield Invoke(self._read_ahead, None)):
                self._stored = yield from self._claim(*key)
                goes_on = self._stored.answer is None
        finally:
            if not goes_on:
                self._let_go(scope)
        return goes_on

    def _claim_late(self, key: str) -> Flow[bool]:
        """Claim a key that the handler gave; whether its steps are to run."""
        runtime, run = self.runtime, self._run
        turn = f"key of {run.run_id}"
        yield from runtime.keyed_lock.enter(turn)  # steps that run side by side ask together
        try:
            if self._stored is None:
                if run.cannot_wait is not None:
                    raise CannotWaitError(
                        f"the idempotency key comes too late, because {run.cannot_wait}; "
                        "call stephttp.configure at the start of the handler"
                    )
                if not (yield Invoke(self._read_ahead, None)):
                    raise self._give_up()
                scope = scope_of(
                    runtime.settings.domain, run.opts.id or self._named_request().endpoint
                )
                self._stored = yield from self._claim(key, scope)
            return self._stored.answer is None
        finally:
            runtime.keyed_lock.leave(turn)

    def _claim(self, key: str, scope: str) -> Flow[Claimed]:
        runtime, run_scope = self.runtime, self.open()
        if self._asked.overflown:
            limit = runtime.settings.max_body_bytes
            return Claimed(False, replies.error_answer(
                413, f"a request with an idempotency key may have a body of {limit} bytes"
            ))  # fmt: skip
        request = self._named_request()
        lease = run_scope.checkpointing.lease_ms
        claimed = yield from claim(runtime.checkpoints, self._run, request, key, scope, lease)
        if claimed.held:
            self._keyed = True
            self._journal = self._new_journal()
            self._journal.claimed()
        return claimed

    def _keep_answer(self) -> None:
        """The response begins. What passes by of it is kept if somebody may ask for it."""
        if self._run.used or self._keyed:
            self._answer = Body(self.runtime.settings.max_body_bytes)

    def _conclude(self, error: BaseException | None) -> Flow[Response | None] | None:
        """The handler has ended. Returns what makes the reply, if it is not the handler's own."""
        self._ended = True
        scope = self.open()
        scope.claimer = scope.on_first_step = None  # see `_let_go`
        if scope.hooks is not None:
            return self._conclude_told(scope.hooks, error)
        if self._run.suspended:
            return self._suspend()
        if self._run.used or self._journal is not None:
            self._record(error)
        return None

    def _conclude_told(self, hooks: Hooks, error: BaseException | None) -> Flow[Response | None]:
        """The same, with the middleware being told."""
        run, reply = self._run, None
        hooks.ctx.request.route = self._route()
        yield from as_flow(hooks.close(error))
        try:
            if run.suspended:
                reply = yield from self._suspend()
            elif run.used or self._journal is not None:
                self._record(error)
        except Exception as raised:
            yield from as_flow(hooks.over(CallEnd(None, raised, False)))
            raise
        if reply is not None:
            yield from as_flow(hooks.before_response(reply))
        answer = Response(self._status, self._headers) if self._status else reply
        yield from as_flow(hooks.over(CallEnd(answer, error, not run.suspended)))
        return reply

    @property
    def _stored_answer(self) -> Response | None:
        """What another request with the same idempotency key was answered."""
        return None if self._stored is None else self._stored.answer

    @property
    def _answers_as(self) -> str:
        """The run that a reply is of: another one, where that has the idempotency key."""
        return (self._stored.run_id if self._stored else "") or self.run_id

    def _suspend(self) -> Flow[Response]:
        if self._stored_answer is not None:
            return self._stored_answer
        if self._asked.overflown:
            limit = self.runtime.settings.max_body_bytes
            return replies.error_answer(
                413, f"the request's body has {self._asked.size} bytes; a request that goes on in "
                f"the background may have {limit}",
            )  # fmt: skip
        request = self._named_request()
        return (yield from suspend(self.runtime.checkpoints, self._run, request, self._journal))

    def _record(self, error: BaseException | None) -> None:
        runtime, answer = self.runtime, self._answer
        response = Response(self._status or 500, self._headers, answer.join() if answer else b"")
        duration_ns = max(0, runtime.now_ns() - self.started_ns)
        text = None if error is None else describe(error)
        if self._run.opts.omit_response_body and not self._keyed:
            response.body = b""
        if self._journal is not None:
            if self._keyed:
                response = self._repeatable(response)
            self._journal.finish(
                runtime.checkpoints.completed(
                    response, duration_ns=duration_ns, error=text, exact=self._keyed
                )
            )
            return
        checkpoint = runtime.checkpoints.finished(
            self._run,
            self._named_request(),
            response,
            duration_ns=duration_ns,
            error=text,
        )
        runtime.outbox.put(Item(Parcel(NEW_RUN, checkpoint)))

    def _repeatable(self, response: Response) -> Response:
        """What other requests with the same idempotency key get."""
        if self._answer is not None and self._answer.overflown:
            return replies.error_answer(
                500, f"the answer to this idempotency key has {self._answer.size} bytes, and was "
                "not kept",
            )  # fmt: skip
        if self._answer is not None and not self._answer.complete:
            return replies.error_answer(
                500, "the answer to this idempotency key did not come to its end"
            )
        if not self._status:  # the handler raised, and the server answers for it
            return Response(500, list(PLAIN_TEXT), b"Internal Server Error")
        return response
