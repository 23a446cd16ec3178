"""Finished steps of a re-entry that are sent before its answer, while the handler still works."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from stephttp._client.background import Job
from stephttp._client.flow import Flow, Until
from stephttp._core.run import Run
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.resumed_run import Resumed
from stephttp._wire.stored_state import CallId
from stephttp.errors import APIStatusError

if TYPE_CHECKING:
    from stephttp._run.runtime import Runtime


RUN_IS_OVER = frozenset({404, 409, 410})
"""Statuses by which a server says that it takes no steps of this run any more."""


class Flushes:
    """The flushes of one re-entry while its handler runs, one at a time. Thread-safe.

    Args:
        runtime: what it shares with other calls.
        resumed: the run.
        lock: of the re-entry, which holds it when it starts something here. Steps may end in
            several threads at once, and a task may begin at once.
    """

    __slots__ = ("_changed", "_idle", "_job", "_lock", "_resumed", "_runtime")

    def __init__(self, runtime: Runtime, resumed: Resumed, lock: threading.RLock) -> None:
        self._runtime = runtime
        self._resumed = resumed
        self._lock = lock
        self._job: Job[None] | None = None
        self._idle = True
        """Whether the next step's end is to start a flush: none is under way, and none failed."""
        self._changed = False
        """Whether a step has ended since the flush under way looked last."""

    def start(self) -> None:
        """Send finished steps now."""
        self._changed = True
        if self._idle:
            self._begin(asks=False)

    def start_question(self) -> Job[None]:
        """Send finished steps, or just ask the engine whether the call still counts.

        Returns:
            What does so, or what was under way, which may not ask.
        """
        self._changed = True
        if self._job is None or self._job.outcome.done():
            return self._begin(asks=True)
        return self._job

    def end(self) -> Flow[None]:
        """Wait until none is under way."""
        if self._job is not None:
            yield Until(self._job.outcome)

    def cancel(self) -> None:
        """Stop what is under way."""
        if self._job is not None:
            self._job.cancel()

    def _begin(self, *, asks: bool) -> Job[None]:
        self._idle = False
        self._job = job = self._runtime.background.start(self._flush(asks=asks), "stephttp-flush")
        return job

    def _flush(self, *, asks: bool) -> Flow[None]:
        """Send finished steps until there are no more; after a failure, the answer does.

        Args:
            asks: whether the engine is asked also if there are no steps to send.
        """
        checkpoints, resumed = self._runtime.checkpoints, self._resumed
        while True:
            with self._lock:
                # Both change under one lock: a step that ends just now either finds this flush
                # idle and starts another, or has set `_changed` and is seen here.
                self._idle = not self._changed
                if self._idle:
                    return
                self._changed = False
            asked_ns = self._runtime.now_ns()
            try:
                heard = yield from flush(checkpoints, resumed.run, resumed.call_id)
                if asks and not heard:
                    yield from checkpoints.post_steps(resumed.run, [], resumed.call_id)
                if asks or heard:
                    asks, resumed.heard_ns = False, asked_ns
            except APIStatusError as problem:
                if problem.status in RUN_IS_OVER:
                    resumed.run.stop()
                raise


def flush(checkpoints: Checkpoints, run: Run, call_id: CallId | None) -> Flow[bool]:
    """Send the finished steps of a resumed run while its handler runs.

    However it ends, steps that are not known to be stored are back with the run.

    Returns:
        Whether there were any.

    Raises:
        APIError: not all could be stored.
    """
    any_sent = False
    while ops := run.take_finished():
        for portion in checkpoints.portions(ops):
            try:
                yield from checkpoints.post_steps(run, portion, call_id)
            except BaseException:
                run.unreported.requeue(ops[ops.index(portion[0]) :])
                raise
        any_sent = True
    return any_sent


def save_the_others(checkpoints: Checkpoints, run: Run, call_id: CallId | None) -> Flow[None]:
    """Send finished steps one by one, since the server refuses one of those that came together."""
    for op in run.take_finished():
        with suppress(APIStatusError):
            yield from checkpoints.post_steps(run, [op], call_id)
