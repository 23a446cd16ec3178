"""Large request bodies in a first call (`max_body_bytes`): refused before the first step where the
endpoint is known to wait.

The body goes with a run that waits, so that the handler can be called with it again. Beyond the
limit an endpoint that may have to wait refuses the request before its first step: it declares
retries, or a request of it has waited in this process. Every other request continues, since most
large uploads come to no wait.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any

from stephttp._client.flow import Flow, Invoke
from stephttp._core import replies
from stephttp._core.run import Run
from stephttp._run.runtime import Runtime
from stephttp._run.suspend import CannotContinueError
from stephttp._wire.http import Body, Headers, Request, Response
from stephttp.errors import CannotWaitError

logger = logging.getLogger("stephttp")


class BoundedCall(ABC):
    """What a first call knows of the body of its request. `FirstCall` sets its attributes.

    Attributes:
        runtime: what it shares with other calls.
    """

    __slots__ = ("_answer", "_headers", "_refused", "_run", "_status", "runtime")

    runtime: Runtime
    _run: Run
    _answer: Body | None
    """What the handler answers, if that is to be kept."""
    _status: int
    """Of the handler's answer; 0: it has not begun."""
    _headers: Headers
    _refused: Response | None
    """What is answered because the run cannot wait."""

    @abstractmethod
    def _method(self) -> str:
        """Return the request's method."""

    @abstractmethod
    def _request(self, body: bytes) -> Request:
        """Return the request, with this body."""

    @abstractmethod
    def _known_of_caller(self) -> str:
        """Return who the caller is, where the server itself knows it; else empty."""

    @abstractmethod
    def _route(self) -> str:
        """Return the template of the request's route, once it is known (`_adapters.routes`)."""

    @property
    @abstractmethod
    def _request_body(self) -> Body:
        """The request's body, as far as it was read."""

    @abstractmethod
    def _has_all(self) -> bool:
        """Whether the whole body was read, as far as the head of the request tells."""

    @abstractmethod
    def _announced(self) -> int | None:
        """Return the length of the body, as the head of the request says; `None` if it does not."""

    @abstractmethod
    def _read_ahead(self, _: Any = None) -> Any:
        """Read the rest of the body before the handler does; False if the caller left.

        A coroutine under ASGI.
        """

    @abstractmethod
    def _caller_left(self) -> BaseException:
        """Return what ends a handler whose caller left while its body was read ahead."""

    @abstractmethod
    def _record(self, error: BaseException | None, *, known: bool = False) -> Flow[None] | None:
        """Report how the run has ended; see `FirstCall`."""

    @abstractmethod
    def _place(self) -> str:
        """Return what stands for the endpoint in this process: its route, where that is known."""

    def _check_size(self) -> Flow[bool]:
        """Refuse a body that is too large, before the first step of an endpoint that may have to
        wait. Returns whether the run is to continue.

        Any other request continues: most large uploads come to no wait.
        """
        run = self._run
        if run.cannot_wait is not None:
            return True
        if not run.retries and self._place() not in self.runtime.waited:
            return True
        size = self._announced()
        if size is None:
            if not (yield Invoke(self._read_ahead, None)):
                raise self._caller_left()
            size = self._request_body.size
        if size > self._largest():
            self._refused = self._too_large(size)
        return self._refused is None

    def _largest(self) -> int:
        """Return how many bytes the body may have if the run has to wait."""
        return self.runtime.checkpoints.largest_body(self._run)

    def _too_large(self, size: int) -> Response:
        return replies.error_answer(413, self._in_words(size))

    def _in_words(self, size: int) -> str:
        """Return what is wrong with a body that is too large."""
        return (
            f"the request's body has {size} bytes; that of a request which continues in the "
            f"background may have {self._largest()}"
        )

    def _fail(self, waiting_for: str, problem: CannotContinueError) -> Flow[Response]:
        """Record that the run has failed, because it has to wait and cannot. Returns the reply.

        Args:
            waiting_for: the step that has to wait.
        """
        run, answer = self._run, problem.answer
        self._refused = answer
        reason = f"step {waiting_for!r} has to wait, but {problem}"
        run.unreported.give_up_waits(problem.ops)
        level = logging.WARNING if answer.status == 413 else logging.ERROR
        logger.log(level, "stephttp: run %s fails: %s", run.run_id, reason)
        self._status, self._headers = answer.status, answer.headers
        self._answer = Body(len(answer.body))
        self._answer.add(answer.body, False)
        yield from self._record(CannotWaitError(reason), known=problem.known) or ()
        return answer
