"""`client.stub`, `spy` and `stub_url`: the part that the clients and `unit` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx2

from stephttp.testing.stubs import Stub, Stubs, UrlStub


class Stubbing:
    """The part of the clients, and of `unit`, by which stubs and spies are made."""

    _stubs: Stubs

    def stub(
        self,
        step: str | Callable[..., Any],
        returns: Any = None,
        *,
        raises: BaseException | type[BaseException] | None = None,
        sequence: Sequence[Any] | None = None,
        call: Callable[..., Any] | None = None,
        optional: bool = False,
    ) -> Stub:
        """Let a step give something without calling its function.

        Works for `step.run` and `step.invoke`, also under `step.options(...)`. The result of
        a stub is stored and converted like that of the function. At the end of its block, a client
        raises an `AssertionError` if a stub was not used.

        Args:
            step: the id of the step, or the function that is given to it.
            returns: what it returns.
            raises: what it raises.
            sequence: what comes of each attempt in turn: exceptions are raised, anything else is
                returned.
            call: called instead of the function, with its arguments.
            optional: whether the step may not run, or not as often as `sequence` has outcomes.

        Returns:
            The stub; its `calls` have the arguments.

        Raises:
            TypeError: more than one of the four is given.
        """
        play = self._stubs.playing(step, returns, raises, sequence, call)
        wanted = 1 if sequence is None else len(sequence)
        return self._stubs.add(step, play, None if optional else wanted)

    def spy(self, step: str | Callable[..., Any]) -> Stub:
        """Watch the function of a step, which is called as ever.

        Args:
            step: the id of the step, or the function that is given to it.

        Returns:
            The spy; its `calls` have arguments, results and errors.
        """
        return self._stubs.add(step, lambda function, args, kwargs: function(*args, **kwargs))

    def stub_url(
        self,
        pattern: str,
        json: Any = None,
        *,
        method: str | None = None,
        status: int = 200,
        text: str | None = None,
        headers: Mapping[str, str] | None = None,
        raises: BaseException | type[BaseException] | None = None,
        sequence: Sequence[Any] | None = None,
        call: Callable[[httpx2.Request], httpx2.Response] | None = None,
    ) -> UrlStub:
        """Answer requests of `step.fetch` and `step.ai.infer`, which reach no network in tests.

        Args:
            pattern: the address, with `*` for any part of it.
            json: the body of the answer, as JSON.
            method: only requests with this method; `None`: any.
            status: of the answer.
            text: the body of the answer, instead of `json`.
            headers: of the answer.
            raises: instead of an answer: a `ConnectionError` or `TimeoutError` is tried again.
            sequence: what comes of each request in turn: an exception, a status, an
                `httpx.Response`, or a body as JSON.
            call: a function of the request that returns the answer.

        Returns:
            The stub; its `requests` are those that were made.

        Raises:
            TypeError: more than one of json, text, raises, sequence and call is given.
        """
        given = [one for one in (json, text, raises, sequence, call) if one is not None]
        if len(given) > 1:
            raise TypeError("a stub has one of json, text, raises, sequence and call")
        if call is not None:
            return self._stubs.add_url(UrlStub(pattern, method, call))
        outcome = httpx2.Response(status, headers=dict(headers or {}), text=text, json=json)
        play = self._stubs.playing(
            pattern, None if raises is not None or sequence is not None else outcome,
            raises, sequence,
        )  # fmt: skip
        return self._stubs.add_url(
            UrlStub(pattern, method, lambda request: _response(play(str, (), {})))
        )


def _response(outcome: Any) -> httpx2.Response:
    if isinstance(outcome, httpx2.Response):
        headers = outcome.headers.raw
        return httpx2.Response(outcome.status_code, headers=headers, content=outcome.content)
    if isinstance(outcome, int) and not isinstance(outcome, bool):
        return httpx2.Response(outcome)
    return httpx2.Response(200, json=outcome)
