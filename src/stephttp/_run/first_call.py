"""A request from outside, neutral to ASGI and WSGI: the steps run in the caller's own request, and
the response goes out at once.

The adapters subclass it: they call the application, and report what the request and the response
consist of as they pass by.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

from stephttp._client.api_calls import steps_path
from stephttp._client.flow import Flow
from stephttp._client.outbox import Item
from stephttp._client.outbox_batch import Parcel
from stephttp._core.failures import describe
from stephttp._run.delivered_first import deliver_first
from stephttp._run.finished_run import FinishedRun, Record
from stephttp._run.hooked_call import HookedCall
from stephttp._run.idempotency import repeatable
from stephttp._run.journal import Journal
from stephttp._run.runtime import J, Runtime
from stephttp._run.scope import RunScope
from stephttp._run.suspend import CannotContinueError, suspend
from stephttp._wire.http import Body, Request, Response
from stephttp._wire.ids import random_ulid
from stephttp._wire.limits import MAX_RECORDED_BYTES

logger = logging.getLogger("stephttp")

T = TypeVar("T")

_MOST_WAITED = 4096
"""Endpoints that are known to wait; then all are forgotten, since paths may stand for them."""


class FirstCall(HookedCall):
    """One request from outside. `run_made` sets the attributes of its run, if it has one.

    Args:
        runtime: what it shares with other calls.
    """

    __slots__ = ("_answered", "_ended")

    attempt = 0

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        now_ns = runtime.now_ns  # called as an attribute, it takes more instructions
        self.started_ns = now_ns()
        self.run_id = random_ulid(self.started_ns // 1_000_000, os.urandom(16))
        self._opened_first = False
        self._answer = None
        self._status = 0

    def run_made(self, scope: RunScope) -> None:
        """Prepare a run that was just made; see `HandlerCall`."""
        self._claimed = self._journal = None
        self._keyed = self._stored = False
        self._answered = False
        """Whether the caller has the whole response, and nothing can change the run's result."""
        self._ended = False
        """Whether the handler has ended."""
        self._gets_events = False
        self._refused = self._leaving = None
        self._run = run = scope.run
        runtime, method = self.runtime, self._method()
        if runtime.settings.track_all_endpoints:
            run.track()
        if method == "HEAD":
            run.refuse_waits("the answer to HEAD has no body that could carry the result")
        elif runtime.cannot_wait is not None:
            runtime.refuse_waits(run, runtime.cannot_wait)
        scope.first_call = self
        if method != "GET" and self._may_be_too_large():
            scope.claim = self._check_size
        if runtime.watch is not None:
            runtime.watch(self, scope)

    @property
    @abstractmethod
    def identity(self) -> tuple[Any, ...]:
        """What tells the request from others; see `HandlerCall`."""

    @property
    @abstractmethod
    def surroundings(self) -> Mapping[str, Any]:
        """The ASGI scope or the environ; see `HandlerCall`."""

    def delivers_first(self) -> bool:
        """Return whether a run is delivered before its caller has the whole response: on a host
        that stops between requests; and so that the next request finds the place free."""
        return self._opened_first or not self.runtime.settings.background

    def first_step(self) -> None:
        """Begin to save, as configured: a step is about to run, whose result could get lost."""
        scope = self.current.scope()
        mode = scope.checkpointing
        if self._ended:
            return
        if self._journal is None:
            self._journal = self._new_journal(Journal)
        scope.on_record = self._journal.note
        self._journal.begin(mode)

    def _new_journal(self, kind: type[J]) -> J:
        scope = self.current.scope()
        journal = self.runtime.journal(kind, self._run, self._known_request, scope.checkpointing)
        scope.fence = journal.fence
        return journal

    def _named_request(self) -> Request:
        """Return the request as far as it was read, with its route if that names the endpoint."""
        request = self._request(self._request_body.join())
        if not self._run.opts.id:
            request.route = self._route()
        return request

    def _place(self) -> str:
        route = self._route()
        return f"{self._method()} {route or self._request(b'').path}"

    def _may_be_too_large(self) -> bool:
        """Whether the body may be larger than one of a request that waits, as far as is known."""
        body = self._request_body
        if body.complete:
            # No server takes less than what is recorded of any run.
            return body.overflown or (body.size > MAX_RECORDED_BYTES and self._is_too_large())
        size, checkpoints = self._announced(), self.runtime.checkpoints
        return size is None or (size > 0 and size > checkpoints.largest_body(self._run))

    def _is_too_large(self) -> bool:
        """Whether the body, as far as it was read, is too large for a request that waits."""
        body = self._request_body
        return body.overflown or body.size > self.runtime.checkpoints.largest_body(self._run)

    def _known_request(self) -> Request | None:
        """Return the request, once its body is complete."""
        if not self._ended and (self._is_too_large() or not self._has_all()):
            return None
        return self._named_request()

    def _note_end_of_answer(self) -> None:
        """Note that the response has come to its end: what fails behind it is not a failure of the
        run, unless what the run has done may still be lost by that."""
        self._answered = self._status < 500 and not self.current.may_lose_writes()

    def _keep_answer(self) -> None:
        """Keep what passes by of the response, if others may ask for it. Called at its start."""
        whole = self._keyed or self._gets_events
        if self._run.used or self._opened_first or whole:
            limit = self.runtime.settings.max_body_bytes
            self._answer = Body(limit if whole else min(limit, MAX_RECORDED_BYTES))

    def _conclude(
        self, scope: RunScope, error: BaseException | None
    ) -> Flow[Response | None] | None:
        """Record how the run ended, or let it wait. Called when its handler has ended.

        Returns:
            What makes the reply, if that is not the handler's own.
        """
        self._ended = True
        if scope.stream is not None:
            return self._conclude_stream(scope, error)
        if scope.hooks is not None:
            return self._conclude_with_hooks(scope.hooks, error)
        return self._end_run(error)

    def _end_run(self, error: BaseException | None) -> Flow[Response | None] | None:
        if self._run.suspended:
            return self._suspend()
        if self._answered:
            error = None
        if self._keyed:
            return self._store(error)
        if self._run.used or self._journal is not None:
            return self._record(error)
        return None

    @property
    def _stored_answer(self) -> Response | None:
        """What another request with the same idempotency key was answered."""
        return None if self._claimed is None else self._claimed.answer

    @property
    def _answered_run(self) -> str:
        """The run that a reply is of: another one, where that has the idempotency key."""
        return (self._claimed.run_id if self._claimed else "") or self.run_id

    def _room(self, seconds: float) -> AbstractContextManager[float]:
        """Hold the caller while the block runs; provides for how long, of the `seconds` wished."""
        return nullcontext(seconds)

    def _suspend(self) -> Flow[Response]:
        if self._stored_answer is not None:
            return self._stored_answer
        if self._refused is not None:
            return self._refused
        if len(self.runtime.waited) >= _MOST_WAITED:
            self.runtime.waited.clear()
        self.runtime.waited.add(self._place())
        waiting_for = self._run.unreported.waiting_for
        if self._is_too_large():
            size = self._request_body.size
            reason = f"{self._in_words(size)} (max_body_bytes)"
            problem = CannotContinueError(self._too_large(size), reason)
            return (yield from self._fail(waiting_for, problem))
        request = self._named_request()
        try:
            return (
                yield from suspend(
                    self.runtime.checkpoints,
                    self._run,
                    request,
                    self._journal,
                    streams=self._gets_events,
                    room=self._room,
                )
            )
        except CannotContinueError as problem:
            # The engine continues a run that holds a key: its caller comes again with that.
            if problem.temporary and (self._keyed or not problem.known):
                return problem.answer
            return (yield from self._fail(waiting_for, problem))

    def log_hidden(self, error: BaseException) -> None:
        """Log what the application raised, where its caller gets an answer of the SDK."""
        logger.error("stephttp: run %s: its handler failed", self._run.run_id, exc_info=error)

    def _response(self) -> Response:
        """Return what the handler answered. Middleware has another list of its headers."""
        if not self._status:
            return Response(500)
        body = b"" if self._answer is None else self._answer.join()
        return Response(self._status, [*self._headers], body)

    def _record(self, error: BaseException | None, *, known: bool = False) -> Flow[None] | None:
        """Report how the run has ended.

        Args:
            known: the server has it from a call in the foreground.

        Returns:
            What does that, where the response has to wait for it.
        """
        runtime, answer, response = self.runtime, self._answer, self._response()
        ended_ns = runtime.now_ns()
        text = None if error is None else describe(error)
        if self._run.opts.omit_response_body and not self._keyed:
            response.body = b""
        if self._keyed:
            response = repeatable(response, answer, raised=not self._status)
        if known or self._journal is not None:
            duration_ns = max(0, ended_ns - self.started_ns)
            complete = runtime.checkpoints.completed(
                response, duration_ns=duration_ns, error=text, exact=self._keyed
            )
            if self._journal is not None and not self._journal.handed_over:
                return self._report(self._journal, self._journal.finish, complete)
            if known:
                ops = [*self._run.unreported.take_all(), complete]
                body = runtime.checkpoints.further_checkpoint(self._run, ops, None)
                item = Item(Parcel(steps_path(self._run.run_id), body))
                return self._report(item, runtime.outbox.put, item)
        record = Record(
            runtime.checkpoints,
            self._run,
            self._run.unreported.take_all(),
            self._named_request(),
            response,
            started_ns=self.started_ns,
            ended_ns=ended_ns,
            error=text,
        )
        finished = FinishedRun(record)
        return self._report(finished, runtime.finished_runs.put, finished)

    def _report(self, item: Item, put: Callable[[T], object], given: T) -> Flow[None] | None:
        """Put an item into the outbox. Returns what does so, where the response has to wait.

        Args:
            put: does so.
            given: its argument.
        """
        if self.delivers_first():
            return deliver_first(item, partial(put, given), self.run_id)
        if self._leaving is not None:
            busy, alive = self._leaving
            self.runtime.outbox.after(busy, partial(put, given), alive)
        else:
            put(given)
        return None
