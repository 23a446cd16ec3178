"""Stand-ins for what steps call and for the hosts they have called, and spies on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import update_wrapper
from inspect import isawaitable
from typing import Any

import httpx2

Play = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Does what a stub does instead of a function, which it gets with the arguments."""


class RecordedCall:
    """One use of a step: how its function, or what stands for it, was called.

    Attributes:
        step: the id of the step.
        tool: the tool that was used, such as `run` or `wait_for_event`.
        args: positional arguments.
        kwargs: keyword arguments.
        result: what was returned; `None` until then, and if it failed.
        error: what was raised, if anything was.
    """

    def __init__(
        self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any], tool: str = "run"
    ) -> None:
        self.step = step
        self.tool = tool
        self.args = args
        self.kwargs = kwargs
        self.result: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        given = [
            *map(repr, self.args),
            *(f"{name}={value!r}" for name, value in self.kwargs.items()),
        ]
        came = f"raised {self.error!r}" if self.error is not None else f"-> {self.result!r}"
        return f"<{self.step}({', '.join(given)}) {came}>"


class Stub:
    """Takes the place of a step's function, or only watches it; made by `stub` and `spy`.

    Attributes:
        calls: how the steps have called it, in order.
    """

    def __init__(self, target: str | Callable[..., Any], play: Play) -> None:
        self._target = target
        self._play = play
        self.calls: list[RecordedCall] = []

    @property
    def call_count(self) -> int:
        """How often it was called."""
        return len(self.calls)

    @property
    def called(self) -> bool:
        """Whether it was called."""
        return bool(self.calls)

    def stands_for(self, step_id: str, function: Callable[..., Any] | None) -> bool:
        """Return whether it takes the place of this function in this step."""
        if isinstance(self._target, str):
            return self._target == step_id
        return function is not None and self._target == function

    def in_place_of(
        self, function: Callable[..., Any], step_id: str, tool: str = "run"
    ) -> Callable[..., Any]:
        """Return what a step calls instead of its function."""

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            call = RecordedCall(step_id, args, kwargs, tool)
            self.calls.append(call)
            try:
                value = self._play(function, args, kwargs)
            except BaseException as error:
                call.error = error
                raise
            if isawaitable(value):
                return _awaited(value, call)
            call.result = value
            return value

        return update_wrapper(stand_in, function)

    def __repr__(self) -> str:
        return f"<Stub {_name(self._target)}, {self.call_count} calls>"


class UrlStub:
    """Answers the requests that steps have the engine make; made by `stub_url`.

    Attributes:
        requests: those that it has answered, in order.
    """

    def __init__(
        self, pattern: str, method: str | None, answer: Callable[[httpx2.Request], httpx2.Response]
    ) -> None:
        self._pattern = pattern
        self._method = method
        self._answer = answer
        self.requests: list[httpx2.Request] = []

    def fits(self, request: httpx2.Request) -> bool:
        """Return whether it answers a request."""
        if self._method is not None and self._method.upper() != request.method:
            return False
        return fnmatchcase(str(request.url), self._pattern)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        self.requests.append(request)
        return self._answer(request)

    def __repr__(self) -> str:
        return f"<UrlStub {self._pattern}, {len(self.requests)} requests>"


class Stubs:
    """The stubs of one test; of two that fit, the one that was made last counts.

    Attributes:
        problems: what the stubs complain of, beside what they raise in the application.
    """

    def __init__(self) -> None:
        self._stubs: list[Stub] = []
        self._urls: list[UrlStub] = []
        self.problems: list[Exception] = []

    def add(self, target: str | Callable[..., Any], play: Play) -> Stub:
        """Add a stub for a step's id, or a function."""
        if not isinstance(target, str) and not callable(target):
            raise TypeError(f"a stub is for the id of a step or its function, not {target!r}")
        stub = Stub(target, play)
        self._stubs.append(stub)
        return stub

    def add_url(self, stub: UrlStub) -> UrlStub:
        """Add a stub for addresses."""
        self._urls.append(stub)
        return stub

    def of(self, step_id: str, function: Callable[..., Any] | None) -> Stub | None:
        """Return the stub of a step."""
        fitting = (one for one in reversed(self._stubs) if one.stands_for(step_id, function))
        return next(fitting, None)

    def replace(
        self, step_id: str, function: Callable[..., Any], tool: str = "run"
    ) -> Callable[..., Any]:
        """Return what a step calls, instead of its function where a stub is for it."""
        stub = self.of(step_id, function)
        return function if stub is None else stub.in_place_of(function, step_id, tool)

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request of a step to the world outside.

        Raises:
            ValueError: no stub is for it.
        """
        for stub in reversed(self._urls):
            if stub.fits(request):
                return stub.answer(request)
        message = (
            f"{request.method} {request.url}: there is no network in tests; say what this address "
            f"answers: stub_url({str(request.url)!r}, json=...)"
        )
        self.complain(AssertionError(message))
        raise ValueError(message)

    def complain(self, error: Exception) -> Exception:
        """Keep an error for the next call of the client, and return it."""
        self.problems.append(error)
        return error

    def playing(
        self,
        target: str | Callable[..., Any],
        returns: Any = None,
        raises: BaseException | type[BaseException] | None = None,
        sequence: Sequence[Any] | None = None,
        call: Callable[..., Any] | None = None,
    ) -> Play:
        """Return what a stub does, from the arguments of `Stubbing.stub`.

        Raises:
            TypeError: two of them are given.
        """
        given = [value for value in (returns, raises, sequence, call) if value is not None]
        if len(given) > 1:
            raise TypeError("a stub has one of returns, raises, sequence and call")
        if call is not None:
            replacement = call
            return lambda function, args, kwargs: replacement(*args, **kwargs)
        if sequence is None:
            outcome = returns if raises is None else raises
            return lambda function, args, kwargs: _come_to(outcome)
        left = iter(sequence)

        def play(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            for outcome in left:
                return _come_to(outcome)
            message = (
                f"the stub of {_name(target)} has {len(sequence)} outcomes, and was called once "
                "more; give it as many as there are attempts"
            )
            raise self.complain(AssertionError(message))

        return play


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
    ) -> Stub:
        """Let a step give something without calling its function.

        Works for `step.run` and `step.invoke`, also under `step.options(...)`. What a stub gives
        is stored and converted like what the function would give.

        Args:
            step: the id of the step, or the function that is given to it.
            returns: what it returns.
            raises: what it raises.
            sequence: what comes of each attempt in turn: exceptions are raised, anything else is
                returned.
            call: called instead of the function, with its arguments.

        Returns:
            The stub; its `calls` have the arguments.

        Raises:
            TypeError: more than one of the four is given.
        """
        return self._stubs.add(step, self._stubs.playing(step, returns, raises, sequence, call))

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
        outcome = httpx2.Response(status, headers=dict(headers or {}), json=json)
        if text is not None:
            outcome = httpx2.Response(status, headers=dict(headers or {}), text=text)
        play = self._stubs.playing(
            pattern, None if raises is not None or sequence is not None else outcome,
            raises, sequence,
        )  # fmt: skip
        return self._stubs.add_url(
            UrlStub(pattern, method, lambda request: _response(play(str, (), {})))
        )


async def _awaited(value: Any, call: RecordedCall) -> Any:
    try:
        call.result = await value
    except BaseException as error:
        call.error = error
        raise
    return call.result


def _come_to(outcome: Any) -> Any:
    if isinstance(outcome, BaseException) or (
        isinstance(outcome, type) and issubclass(outcome, BaseException)
    ):
        raise outcome
    return outcome


def _response(outcome: Any) -> httpx2.Response:
    if isinstance(outcome, httpx2.Response):
        headers = outcome.headers.raw
        return httpx2.Response(outcome.status_code, headers=headers, content=outcome.content)
    if isinstance(outcome, int) and not isinstance(outcome, bool):
        return httpx2.Response(outcome)
    return httpx2.Response(200, json=outcome)


def _name(target: str | Callable[..., Any]) -> str:
    return repr(target) if isinstance(target, str) else getattr(target, "__name__", repr(target))
