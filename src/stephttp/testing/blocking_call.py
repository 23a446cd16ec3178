"""One request of a blocking test, with its run and its response: `call.until_waiting()`,
`call.response`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2

from stephttp.testing.calls import Exchange
from stephttp.testing.loop_thread import LoopThread
from stephttp.testing.recorded import RecordedRun


class Call:
    """A request that was sent, and its run.

    It is also its response: `call.status_code`, `call.json()` and so on let time pass until the
    answer is there that the caller gets at last.
    """

    def __init__(self, exchange: Exchange, loop: LoopThread) -> None:
        self._exchange = exchange
        self._loop = loop

    @property
    def accepted(self) -> httpx2.Response:
        """The first answer, as it was: of a run that waits, a redirect to its result; of a stream,
        what has come of it so far."""
        return self._loop.call(self._exchange.accepted())

    @property
    def response(self) -> httpx2.Response:
        """The answer that the caller gets at last; lets time pass until it is there.

        Raises:
            Stuck: the run does not end.
        """
        return self._loop.call(self._exchange.last())

    @property
    def result(self) -> httpx2.Response:
        """The handler's answer, also where the caller got a token, or another answer before.

        Raises:
            Stuck: the run does not end.
        """
        return self._loop.call(self._exchange.result())

    @property
    def run(self) -> RecordedRun:
        """The run as it stands now; lets no time pass.

        Raises:
            LookupError: the request has none, since its handler came to no step.
        """
        return self._loop.call(self._exchange.run())

    def finish(self) -> RecordedRun:
        """Let time pass until the run has ended, and return it.

        Raises:
            Stuck: it does not end.
        """
        return self._loop.call(self._exchange.finish())

    def until_waiting(self, step_id: str | None = None) -> RecordedRun:
        """Let time pass until the run waits for a time, an event, a signal or another run.

        Args:
            step_id: the step that is to wait; `None`: any.

        Returns:
            The run.

        Raises:
            Stuck: the run ends first.
        """
        return self._loop.call(self._exchange.until_waiting(step_id))

    def until_step(self, step_id: str) -> RecordedRun:
        """Let time pass until a step has ended, or waits.

        Args:
            step_id: the step.

        Returns:
            The run.

        Raises:
            Stuck: the run ends first.
        """
        return self._loop.call(self._exchange.until_step(step_id))

    def cancel(self) -> RecordedRun:
        """End the run as cancelled, and return it."""
        return self._loop.call(self._exchange.cancel())

    def json(self, **kwargs: Any) -> Any:
        """Return the body of `response`, read as JSON."""
        return self.response.json(**kwargs)

    def raise_for_status(self) -> httpx2.Response:
        """Return `response`, unless its status says that it failed.

        Raises:
            httpx2.HTTPStatusError: it does.
        """
        return self.response.raise_for_status()

    @property
    def status_code(self) -> int:
        """The status of `response`."""
        return self.response.status_code

    @property
    def headers(self) -> httpx2.Headers:
        """The headers of `response`."""
        return self.response.headers

    @property
    def cookies(self) -> httpx2.Cookies:
        """The cookies that `response` sets."""
        return self.response.cookies

    @property
    def text(self) -> str:
        """The body of `response` as text."""
        return self.response.text

    @property
    def content(self) -> bytes:
        """The body of `response`."""
        return self.response.content

    @property
    def url(self) -> httpx2.URL:
        """The address that answered with `response`."""
        return self.response.url

    @property
    def is_success(self) -> bool:
        """Whether the status of `response` is one of 200 to 299."""
        return self.response.is_success

    if not TYPE_CHECKING:  # the usual parts have types, above

        def __getattr__(self, name: str) -> Any:
            """Return another part of `response`."""
            # Nothing else, because looking for it would let time pass.
            if name.startswith("_") or not hasattr(httpx2.Response, name):
                raise AttributeError(f"a Call has no {name!r}, nor has a response")
            return getattr(self.response, name)

    def __repr__(self) -> str:
        return f"<Call {self._exchange.label}>"
