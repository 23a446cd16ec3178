"""Stubs and spies at work: the steps and hosts that they stand for, what they return or
raise, and those that were not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial, update_wrapper
from typing import Any

import httpx2

from stephttp.testing.recorded_calls import RecordedCall, recording

Play = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Does what a stub does instead of a function, which it gets with the arguments."""


class Stub:
    """Takes the place of a step's function, or only watches it; made by `stub` and `spy`.

    Attributes:
        calls: how the steps have called it, in order.
    """

    def __init__(
        self, target: str | Callable[..., Any], play: Play, wanted: int | None = None
    ) -> None:
        self._target = target
        self._play = play
        self._wanted = wanted
        """How often it has to be called at least: once, or as often as it has outcomes."""
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
        # A transaction wraps the function that it is given.
        return function is not None and self._target in (
            function, getattr(function, "__wrapped__", None),
        )  # fmt: skip

    def unused(self, later: Sequence[Stub]) -> str | None:
        """Return what it was made for and did not do; `None` if it has done all of that.

        Args:
            later: stubs that were made after it, and may have taken its place.
        """
        if self._wanted is None or self.call_count >= self._wanted:
            return None
        if any(one._target == self._target for one in later):
            return None
        if self.calls:
            return f"was used {self.call_count} times, and has {self._wanted} outcomes"
        return "was never used: no step that ran has this id, or this function"

    def in_place_of(
        self, function: Callable[..., Any], step_id: str, tool: str = "run"
    ) -> Callable[..., Any]:
        """Return what a step calls instead of its function."""

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            call = RecordedCall(step_id, args, kwargs, tool)
            self.calls.append(call)
            return recording(partial(self._played, function), call)(*args, **kwargs)

        return update_wrapper(stand_in, function)

    def _played(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._play(function, args, kwargs)

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

    give_waits = False
    """Whether stubs also say what comes of waits."""

    def __init__(self) -> None:
        self._stubs: list[Stub] = []
        self._urls: list[UrlStub] = []
        self.problems: list[Exception] = []

    def add(self, target: str | Callable[..., Any], play: Play, wanted: int | None = None) -> Stub:
        """Add a stub for a step's id, or a function, which has to be called so often."""
        if not isinstance(target, str) and not callable(target):
            raise TypeError(f"a stub is for the id of a step or its function, not {target!r}")
        stub = Stub(target, play, wanted)
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

    def check_used(self) -> None:
        """Find the stubs that stood for nothing, perhaps since their step has another name.

        Raises:
            AssertionError: there is one.
        """
        for number, stub in enumerate(self._stubs):
            if (what := stub.unused(self._stubs[number + 1 :])) is not None:
                raise AssertionError(
                    f"the stub of {_name(stub._target)} {what}; if that may be so, make it with "
                    "stub(..., optional=True)"
                )

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

    def taken_problems(self) -> list[Exception]:
        """Return what was kept, which is not kept any more."""
        problems, self.problems = self.problems, []
        return problems

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


def _come_to(outcome: Any) -> Any:
    if isinstance(outcome, BaseException) or (
        isinstance(outcome, type) and issubclass(outcome, BaseException)
    ):
        raise outcome
    return outcome


def _name(target: str | Callable[..., Any]) -> str:
    return repr(target) if isinstance(target, str) else getattr(target, "__name__", repr(target))
