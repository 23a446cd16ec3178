"""One re-entry of a run at a time in a process, and a state that travels with a call is used once.

Here is what a process remembers for that, and what the heads of calls and answers say
(docs/design.md 3.11, 3.13).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from stephttp._client.flow import Answer, Flow, Until
from stephttp._client.new_run import REQUEST_VERSION
from stephttp._core import replies
from stephttp._run.current import run_headers
from stephttp._wire import stored_state
from stephttp._wire.http import Body, Headers, Request, Response
from stephttp._wire.ids import ulid_number

if TYPE_CHECKING:
    from stephttp._run.call_check import CallCheck
    from stephttp._run.runtime import Runtime

_FRESH_MS = round(stored_state.ASKS_AFTER * 1000)
"""Milliseconds for which a state that was sent can be taken. With an older one, the call would have
to ask before its first step anyway."""


NAMES_OF_CALL = tuple(name.encode() for name in stored_state.CALL_HEADERS)
"""`CALL_HEADERS` in the head of a call."""
_NAMES_OF_CALL = (b"x-run-id", *NAMES_OF_CALL)
_PROCESS, _RECEIVER, _SENT = (
    name.encode() for name in (stored_state.PROCESS, stored_state.RECEIVER, stored_state.SENT)
)

ATTEMPT = b"x-stephttp-attempt"
"""On a re-entry by our engine: the exact number of attempts before (docs/design.md 3.8)."""
_ROOT = "step"
"""A server that sends this as the step wants the whole handler called."""


VERSION_HEADER = (b"x-inngest-req-version", str(REQUEST_VERSION).encode())


class KeyedLock:
    """Gives each name to one holder at a time, in the order in which they asked. Thread-safe."""

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start afresh, in a process that was forked."""
        self._lock = threading.Lock()
        self._queues: dict[str, deque[Future[None]] | None] = {}
        """Who waits for a name that is held, if anyone does."""

    def acquire(self, name: str) -> Flow[bool]:
        """Wait until `name` is free, and take it. Call `release` afterwards.

        Returns:
            Whether another holder had it first.
        """
        with self._lock:
            if name not in self._queues:
                self._queues[name] = None
                return False
        # Made without the lock: memory that is collected meanwhile may give up its place.
        mine, queue = Future[None](), deque[Future[None]]()
        with self._lock:
            if name not in self._queues:  # released just now
                self._queues[name] = None
                return True
            known = self._queues[name]
            queue = self._queues[name] = queue if known is None else known
            queue.append(mine)
        try:
            yield Until(mine)
        except BaseException:
            self._give_up(name, queue, mine)
            raise
        return True

    def contended(self, name: str) -> bool:
        """Whether others wait for `name` while it is held."""
        return bool(self._queues.get(name))

    def release(self, name: str) -> None:
        """Give `name` to the next one that waits for it."""
        with self._lock:
            queue = self._queues[name]
            following = queue.popleft() if queue else None
            if following is None:
                del self._queues[name]
        # Without the lock: where a loop has ended, this closes the call that waited on it, which
        # then gives up its place.
        if following is not None:
            following.set_result(None)

    def _give_up(self, name: str, queue: deque[Future[None]], mine: Future[None]) -> None:
        with self._lock:
            if mine in queue:
                queue.remove(mine)
                return
            given = self._queues.get(name) is queue  # another one's after a fork
        if given:
            self.release(name)


def target_of(request: Request) -> str | None:
    """Return the hash of the one step that a server asks for."""
    target = request.header(b"x-inngest-step-id")
    return target if target not in ("", _ROOT) else None


def is_ours(request: Request) -> bool:
    """Whether a call is by our engine."""
    return bool(request.first_values().get(ATTEMPT))


def takes_turns(request: Request) -> bool:
    """Whether a call waits for others of its run: not if another server than ours asks for one
    step, which it does for several at the same time (docs/protocol.md 13.2)."""
    return is_ours(request) or target_of(request) is None


def sent_ns(request: Request) -> int:
    """Return when the state was sent that came with a re-entry, in nanoseconds since the epoch."""
    return int(request.first_values()[_SENT]) * 1_000_000


def own_headers(runtime: Runtime, request: Request) -> Headers:
    """Return what each answer to a re-entry says of this SDK, and to our engine of this process."""
    own = [*run_headers(_named_run(request)), VERSION_HEADER]
    if is_ours(request):
        own.append((_PROCESS, runtime.deliveries.process.encode()))
    return own


def body_of(runtime: Runtime, request: Request) -> Body:
    """Return what takes the body of a re-entry, with the state that may come behind it."""
    return Body(runtime.settings.max_body_bytes + stored_state.announced(request))


def _named_run(request: Request) -> str:
    """Return the run that a call names, for the headers of the answer; empty if it cannot be one.
    The caller may be anyone."""
    run_id = request.header(b"x-run-id")
    return run_id if run_id.isascii() else ""


class Deliveries:
    """The states of runs that came along and were taken: each by one process, once. Thread-safe.

    The engine names the process that may take a state. Any other has to ask for it, and so has a
    second delivery: a step may have been acknowledged meanwhile (docs/design.md 3.13).
    """

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start afresh, in a process that was forked."""
        self._lock = threading.Lock()
        # A `dict` whose oldest entries go is searched from its first place each time.
        self._taken: OrderedDict[tuple[bytes, ...], int] = OrderedDict()
        self._latest_ms = 0
        self.process = os.urandom(12).hex()
        """The name of this process, for the engine."""

    def take(self, request: Request, now_ms: int) -> bool:
        """Return whether the state that came with a re-entry may be used, which is once so."""
        first = request.first_values()
        sent, receiver = first.get(_SENT, b""), first.get(_RECEIVER)
        if receiver != self.process.encode() or not sent.isdigit():
            return False
        call = tuple([first.get(name, b"") for name in _NAMES_OF_CALL])
        with self._lock:
            self._latest_ms = max(self._latest_ms, now_ms)
            # What was forgotten must stay too old, also after the clock went back.
            fresh = abs(self._latest_ms - int(sent)) <= _FRESH_MS
            if not fresh or call in self._taken:
                return False
            self._taken[call] = now_ms
            while (oldest := next(iter(self._taken))) != call:
                if self._latest_ms - self._taken[oldest] <= 3 * _FRESH_MS:
                    break
                del self._taken[oldest]
            return True


class Admission:
    """Whether a call of the server may continue its run now. `enter` it, and `leave` it afterwards.

    Args:
        runtime: what it shares with others.
        request: the server's own; gets its body.
        received: that body, as far as it was read; see `body_of`.
    """

    __slots__ = (
        "_check",
        "_locked",
        "_request",
        "_runtime",
        "_too_large",
        "doubt",
        "heard_ns",
        "state",
    )

    def __init__(self, runtime: Runtime, request: Request, received: Body) -> None:
        self._runtime = runtime
        self._request = request
        self._locked = ""
        whole = request.body = received.join()
        self.state = stored_state.detach(request)
        """What came along of the run; after `enter`, if it can be relied on."""
        self.heard_ns = 0
        """When the server was heard of last, in nanoseconds since the epoch."""
        self.doubt: Callable[[Answer], Response | None] | None = None
        """Returns what refuses the call, from an answer of the server; see `CallCheck`."""
        self._too_large = ""
        if received.overflown or len(request.body) > runtime.settings.max_body_bytes:
            self._too_large = f"the body has {received.size} bytes, which is too many"
        self._check: CallCheck | None = None
        """`None` in development without keys, where nothing is signed."""
        if not runtime.settings.dev or runtime.checkpoints.keys.bearer is not None:
            from stephttp._run.call_check import CallCheck

            self._check = CallCheck(runtime.checkpoints, request, whole)

    def enter(self) -> Flow[Response | None]:
        """Wait until no other call of the run is at work. Returns what refuses this one."""
        if self._too_large:
            return replies.refused(413, self._too_large)
        run_id = self._request.header(b"x-run-id")
        try:
            ulid_number(run_id)
        except ValueError:
            return replies.refused(400, f"x-run-id: {run_id!r} is not a ULID")
        check, covers_state = self._check, True
        if check is not None:
            refusal = yield from check.verify()
            if refusal is not None:
                return refusal
            covers_state, self.doubt = check.covers_state, check.doubt
        waited = False
        if takes_turns(self._request):
            waited = yield from self.take(run_id)
        # The state that came along is older than what the call before this one has stored.
        state = self.state if covers_state and not waited else None
        self.heard_ns = self._runtime.now_ns()
        if state is not None:
            if self._runtime.deliveries.take(self._request, self.heard_ns // 1_000_000):
                self.heard_ns = min(self.heard_ns, sent_ns(self._request))
            else:
                state = None
        self.state = state
        return None

    def take(self, name: str) -> Flow[bool]:
        """Wait until `name` is free, and hold it. Returns whether another call had it first."""
        waited = yield from self._runtime.keyed_lock.acquire(name)
        self._locked = name
        return waited

    @property
    def contended(self) -> bool:
        """Whether others wait for this call to end."""
        return self._runtime.keyed_lock.contended(self._locked)

    def leave(self) -> None:
        """Let the next call of the run in."""
        if self._locked:
            self._runtime.keyed_lock.release(self._locked)
            self._locked = ""
