"""The stream of a run in one call: which pushes of a handler count, and what marks the end of
a step or of the run (docs/protocol.md 8).
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Protocol

from stephttp._run import event_answers
from stephttp._run.checkpoints import callers_origin
from stephttp._run.frame_sender import FrameSender
from stephttp._run.suspend import result_url
from stephttp._wire import stream_frames

if TYPE_CHECKING:
    from stephttp._client.flow import Flow
    from stephttp._run.resumed_run import Resumed
    from stephttp._run.scope import RunScope
    from stephttp._run.step_call import StepCall
    from stephttp._wire.http import Request, Response


class Listener(Protocol):
    """The caller of a first call that asked for events: they are its answer."""

    def put(self, event: bytes) -> None:
        """Send an event now or soon. May be called in any thread."""

    def catch_up(self) -> Awaitable[None] | None:
        """Return what to wait for until the caller has taken most of it; `None`: nothing."""


class RunStream:
    """The pushes of one call of a handler, and what becomes of those of its steps. Thread-safe.

    Args:
        scope: of the run.
        listener: the caller, if it gets events.
        sender: to the server.
        skips_replay: leave out pushes outside of steps that an earlier call seems to have made, as
            the server does not count them.
    """

    def __init__(
        self,
        scope: RunScope,
        listener: Listener | None,
        sender: FrameSender,
        *,
        skips_replay: bool = False,
    ) -> None:
        self._scope = scope
        self._skips_replay = skips_replay
        self._lock = threading.Lock()
        self._number = 0
        """Of the latest event; the engine counts in the same way."""
        self._place = 0
        """Of the latest push outside of steps."""
        self._steps: set[str] = set()
        """Steps that have pushed, and have not ended."""
        self._closed = self._greeted = False
        self._counts = not skips_replay
        self.listener = listener
        self.sender = sender

    def push(self, value: bytes, inside: StepCall | None) -> None:
        """Push a value.

        Args:
            value: JSON.
            inside: the step whose body pushes it.
        """
        run = self._scope.run
        step = inside.step.hash if inside is not None and inside.scope is self._scope else ""
        with self._lock:
            if self._closed:
                return
            self._greet()
            if not step and (run.unwinding or (self._skips_replay and run.replaying)):
                return
            place = 0
            if step:
                self._steps.add(step)
            else:
                self._place = place = self._place + 1
            self._put(value, step, place)

    def step_ended(self, step: str, *, stays: bool) -> None:
        """Say what becomes of the pushes of a step, if it has made any.

        Args:
            stays: it has finished; else it failed, or was cut off.
        """
        with self._lock:
            if step not in self._steps or self._closed:
                return
            self._steps.discard(step)
            event = stream_frames.committed(step) if stays else stream_frames.rolled_back(step)
            self._number += 1
            if self.listener is not None:
                self.listener.put(b"id: %d\n%s" % (self._number, event))
            self.sender.put(event, mark=True)

    def close(self) -> None:
        """Take no further pushes: the handler has ended."""
        with self._lock:
            self._closed = True

    def leave(self) -> Future[None] | None:
        """Take no further pushes, and send those that there are in the background.

        Returns:
            What is done once the server has them, or takes too long; `None`: there is nothing that
            it is to have.
        """
        self.close()
        return self.sender.send_in_time()

    def finish(self) -> Flow[None]:
        """Take no further pushes, and send those that there are."""
        self.close()
        yield from self.sender.flush()

    def tell_end(self, response: Response) -> Flow[None]:
        """Give the answer of the handler to those who follow the run, where the server does not."""
        self.sender.put(event_answers.last_event(response, failed=False), mark=True)
        yield from self.sender.flush()

    def hand_over(self) -> Flow[None]:
        """Leave the stream of a first call to the engine, before that can call the handler."""
        if self.sender.held:
            yield from self.sender.learn()
        yield from self.sender.flush()

    def _greet(self) -> None:
        """Begin the answer of a caller that gets events. Under WSGI that may wait for the caller,
        so the stream is not made with it: other runs would wait as well."""
        if self.listener is not None and not self._greeted:
            self._greeted = True
            self.listener.put(stream_frames.metadata(self._scope.run.run_id))

    def _put(self, value: bytes, step: str, place: int) -> None:
        sender = self.sender
        self._number += 1
        if self.listener is not None:
            self.listener.put(b"id: %d\n%s" % (self._number, stream_frames.pushed(value, step)))
        sender.put(stream_frames.pushed(value, step, place if self._counts else 0))


def begin(scope: RunScope, listener: Listener | None, request: Request) -> RunStream:
    """Return the stream of a first call.

    Our engine gets it when the run is left to it, and at once where it gets the steps at once.

    Args:
        listener: the caller, if it gets events.
        request: its request, without the body.
    """
    mode = scope.checkpointing
    early = mode.buffered_steps is not None or mode.max_interval is not None
    sender = FrameSender(scope, stream_frames.FIRST_CALL, keeps=False, held=True, early=early)
    if listener is not None and early:
        origin = callers_origin(request, scope.runtime.settings)
        sender.on_link = partial(_tell_where, scope, listener, origin)
    return RunStream(scope, listener, sender)


def _tell_where(scope: RunScope, listener: Listener, origin: str, link: str) -> None:
    """Say early where the stream continues: should this process die, its caller goes there."""
    run_id, settings = scope.run.run_id, scope.runtime.settings
    url = event_answers.stream_at(result_url(settings, run_id, link), origin)
    listener.put(event_answers.continued(run_id, url, begun=True).body)


def begin_again(scope: RunScope, resumed: Resumed) -> RunStream:
    """Return the stream of a re-entry."""
    keeps, name = resumed.keeps_streams, resumed.request_id or "call"
    sender = FrameSender(scope, name, keeps=keeps, call_id=resumed.call_id)
    return RunStream(scope, None, sender, skips_replay=not keeps)
