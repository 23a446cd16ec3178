"""Turns of threads: one of the application works at a time, and a test chooses which.

A thread gives its turn away where it would block: at a request to the server, at the end of its
branches, at a lock that a call of the same run has. Whatever ends that makes it ready again, at
once, so which threads are ready does not depend on how fast any of them is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, TypeVar
from unittest.mock import patch

from stephttp._client import background, blocking_driver
from stephttp.sync import _threads

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds in which what is at work blocks, or comes to a gate: it hangs, if it takes longer."""


class Turns:
    """The turns.

    Args:
        choose: returns one of so many numbers, from 0.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self._choose = choose
        self.active = False
        self.ready: Callable[[], object] = lambda: None
        """Is called when a thread is ready."""
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._ready: list[threading.Event] = []
        self._begun: set[threading.Event] = set()
        self._blocked = threading.Event()
        self._own = threading.local()

    @contextmanager
    def chosen(self) -> Generator[None]:
        """Give turns, while the block runs, to the threads that begin there."""
        with (
            patch.object(_threads, "ThreadPoolExecutor", lambda *_: _Branches(self)),
            patch.object(_threads, "SimpleQueue", lambda: _Queue(self)),
            patch.object(blocking_driver, "wait_for_futures", self._wait_for_futures),
            patch.object(
                background,
                "threading",
                SimpleNamespace(Thread=partial(_Thread, self), Condition=threading.Condition),
            ),
        ):
            self._pool = ThreadPoolExecutor(64, "turn")
            self.active = True
            try:
                yield
            finally:
                self.active = False
                for turn in [*self._begun]:  # a test has failed: let them end by themselves
                    turn.set()
                self._pool.shutdown(wait=False)

    def start(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Begin a thread, which is ready at once."""
        assert self._pool is not None, "turns are not chosen"
        future: Future[T] = Future()
        turn = threading.Event()
        self._begun.add(turn)
        self._make_ready(turn)
        self._pool.submit(self._work, turn, future, work, args)
        return future

    def wait(self, future: Future[T]) -> T:
        """Wait for a future, in a thread: others have their turns meanwhile."""
        turn: threading.Event | None = getattr(self._own, "turn", None)
        if turn is not None and self.active:
            turn.clear()
            future.add_done_callback(lambda _: self._make_ready(turn))
            self._blocked.set()
            turn.wait()
        return future.result()

    def give(self) -> bool:
        """Let the threads that are ready work, one by one, until each blocks. Called on the event
        loop. Returns whether there was any."""
        gave = False
        while self._ready:
            with self._lock:
                turn = self._ready.pop(self._choose(len(self._ready)))
            self._blocked.clear()
            turn.set()
            assert self._blocked.wait(PATIENCE), "a thread blocks where it has to give its turn"
            gave = True
        return gave

    def _make_ready(self, turn: threading.Event) -> None:
        with self._lock:
            self._ready.append(turn)
        self.ready()

    def _work(
        self, turn: threading.Event, future: Future[T], work: Callable[..., T], args: Any
    ) -> None:
        turn.wait()
        self._own.turn = turn
        try:
            future.set_result(work(*args))
        except BaseException as error:
            future.set_exception(error)
        finally:
            self._own.turn = None
            self._begun.discard(turn)
            self._blocked.set()

    def _wait_for_futures(self, futures: Any, timeout: float | None = None, *_: Any) -> Any:
        (future,) = futures
        assert timeout is None, "a lock of a run has no time limit"
        self.wait(future)
        return _Done({future})


class _Done(NamedTuple):
    done: set[Any]


class _Branches:
    """The pool of threads of one group of branches."""

    def __init__(self, turns: Turns) -> None:
        self.submit = turns.start

    def shutdown(self, *, wait: bool) -> None:
        assert not wait


class _Thread:
    """A thread in the background: one that sends what has ended, or that waits for a time."""

    def __init__(self, turns: Turns, target: Callable[[], None], name: str, daemon: bool) -> None:
        self._turns = turns
        self._target = target
        self._waits = name == "stephttp-schedule"
        self._real = threading.Thread(target=target, name=name, daemon=daemon)
        self._future: Future[None] | None = None

    def start(self) -> None:
        if self._waits:
            self._real.start()
        else:
            self._future = self._turns.start(self._target)

    def is_alive(self) -> bool:
        if self._future is None:
            return self._real.is_alive()
        return not self._future.done()


class _Queue(Generic[T]):
    """A queue; who waits at it gives the turn away."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._items: deque[T] = deque()
        self._missed: Future[None] | None = None

    def put(self, item: T) -> None:
        self._items.append(item)
        missed, self._missed = self._missed, None
        if missed is not None:
            missed.set_result(None)

    def get(self) -> T:
        if not self._items:
            self._missed = Future()
            self._turns.wait(self._missed)
        return self._items.popleft()
