"""`APIClient` and `SyncAPIClient`: the checkpoint API by hand, for programs that report runs
of their own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stephttp._client import api_calls
from stephttp._client.api_calls import CheckpointRun
from stephttp._client.api_result import APIResult
from stephttp._client.blocking_driver import SyncDriver
from stephttp._client.drivers import AsyncDriver
from stephttp._client.event_loop import sleep
from stephttp._client.flow import Flow, Keys, send
from stephttp._client.new_run import (
    REQUEST_VERSION,
    CheckpointNewRunRequest,
    NewAPIRunData,
    RunEvent,
)
from stephttp._wire.ids import ulid_number
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import Op
from stephttp.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx2


class _Flows:
    """The four calls as flows."""

    def __init__(
        self, base_url: str, keys: Keys, now_ns: Callable[[], int], rng: random.Random
    ) -> None:
        self.base_url = base_url
        self.keys = keys
        self._now_ns = now_ns
        self._rng = rng

    def new_run(
        self, run_id: str, input: NewAPIRunData, steps: Sequence[Op], retries: int, idempotency: str
    ) -> Flow[CheckpointRun]:
        _check_run_id(run_id)
        request = CheckpointNewRunRequest(
            run_id,
            RunEvent(input, self._now_ms()),
            list(steps),
            retries,
            REQUEST_VERSION,
            idempotency,
        )
        call = api_calls.post_new_run(encode_struct(request))
        answer = yield from send(call, self.keys, self._rng)
        return api_calls.read_new_run(answer)

    def steps(self, run: CheckpointRun, steps: Sequence[Op]) -> Flow[None]:
        call = api_calls.post_steps(
            run.run_id, list(steps), self._now_ms(), fn_id=run.fn_id, app_id=run.app_id
        )
        yield from send(call, self.keys, self._rng)

    def get_steps(self, run_id: str) -> Flow[dict[str, Any]]:
        _check_run_id(run_id)
        answer = yield from send(api_calls.get_actions(run_id), self.keys, self._rng)
        memos = api_calls.read_actions(answer)
        return {name: msgspec.json.decode(memo) for name, memo in memos.items()}

    def _now_ms(self) -> int:
        return self._now_ns() // 1_000_000


class APIClient:
    """The checkpoint API of an engine or Inngest server. `stephttp.sync.APIClient` blocks.

    Each call is tried five times, with growing pauses, while the server is away or busy (no
    answer, 5xx, 408, 425, 429). A 401 makes the whole process change to the other key.

    Args:
        base_url: origin of the server.
        primary_key: signing key; empty in development.
        fallback_key: used when the first is refused.
        transport: carries requests instead of the network, for tests.
        now_ns: the clock, nanoseconds since the epoch.
        pause: waits for so many seconds.
        rng: jitter of the pauses.

    Raises:
        ConfigurationError: a key is not hexadecimal.
    """

    def __init__(
        self,
        base_url: str,
        primary_key: str = "",
        fallback_key: str = "",
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        pause: Callable[[float], Awaitable[Any]] = sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._flows = _flows(base_url, primary_key, fallback_key, now_ns, rng)
        self._driver = AsyncDriver(base_url, transport=transport, pause=pause)

    def __repr__(self) -> str:
        return f"<APIClient {self._flows.base_url}>"

    async def checkpoint_new_run(
        self,
        run_id: str,
        input: NewAPIRunData,
        *steps: Op,
        retries: int = 0,
        idempotency: str = "",
    ) -> CheckpointRun:
        """Report a new run.

        Args:
            run_id: a ULID of your making; its time is the start of the run.
            input: the request that started it.
            *steps: what it did so far. Without any, the answer has no token.
            retries: how often the server is to call again after a failure.
            idempotency: a key that the caller chose.

        Returns:
            The server's ids of run, function and app, and the token for the result.

        Raises:
            APIError: the server cannot be reached, or refused.
            ValueError: `run_id` is not a ULID.
        """
        flow = self._flows.new_run(run_id, input, steps, retries, idempotency)
        return await self._driver.run(flow)

    async def checkpoint_steps(self, run: CheckpointRun, steps: Sequence[Op]) -> None:
        """Report further steps of a run.

        Args:
            run: what `checkpoint_new_run` returned.
            steps: what the run did since.

        Raises:
            APIError: the server cannot be reached, or refused.
        """
        await self._driver.run(self._flows.steps(run, steps))

    async def checkpoint_response(self, run: CheckpointRun, result: APIResult) -> None:
        """End a run with the answer that its caller got, or is to get.

        Args:
            run: what `checkpoint_new_run` returned.
            result: the answer.

        Raises:
            APIError: the server cannot be reached, or refused.
            ValueError: the body is not UTF-8 text.
        """
        await self._driver.run(self._flows.steps(run, [result.op()]))

    async def get_steps(self, run_id: str) -> dict[str, Any]:
        """Return what the server remembers of a run (docs/protocol.md 5.3).

        Args:
            run_id: a ULID.

        Returns:
            Decoded JSON by step hash.

        Raises:
            APIError: the server cannot be reached, or refused; status 410 when the run has ended.
            ValueError: `run_id` is not a ULID.
        """
        return await self._driver.run(self._flows.get_steps(run_id))

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._driver.aclose()


class SyncAPIClient:
    """`stephttp.APIClient`, blocking. May be used from several threads.

    Args:
        base_url: origin of the server.
        primary_key: signing key; empty in development.
        fallback_key: used when the first is refused.
        transport: carries requests instead of the network, for tests.
        now_ns: the clock, nanoseconds since the epoch.
        pause: waits for so many seconds.
        rng: jitter of the pauses.

    Raises:
        ConfigurationError: a key is not hexadecimal.
    """

    def __init__(
        self,
        base_url: str,
        primary_key: str = "",
        fallback_key: str = "",
        *,
        transport: httpx2.BaseTransport | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        pause: Callable[[float], Any] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._flows = _flows(base_url, primary_key, fallback_key, now_ns, rng)
        self._driver = SyncDriver(base_url, transport=transport, pause=pause)

    def __repr__(self) -> str:
        return f"<APIClient {self._flows.base_url}>"

    def checkpoint_new_run(
        self,
        run_id: str,
        input: NewAPIRunData,
        *steps: Op,
        retries: int = 0,
        idempotency: str = "",
    ) -> CheckpointRun:
        """See `stephttp.APIClient.checkpoint_new_run`."""
        return self._driver.run(self._flows.new_run(run_id, input, steps, retries, idempotency))

    def checkpoint_steps(self, run: CheckpointRun, steps: Sequence[Op]) -> None:
        """See `stephttp.APIClient.checkpoint_steps`."""
        self._driver.run(self._flows.steps(run, steps))

    def checkpoint_response(self, run: CheckpointRun, result: APIResult) -> None:
        """See `stephttp.APIClient.checkpoint_response`."""
        self._driver.run(self._flows.steps(run, [result.op()]))

    def get_steps(self, run_id: str) -> dict[str, Any]:
        """See `stephttp.APIClient.get_steps`."""
        return self._driver.run(self._flows.get_steps(run_id))

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()


def _flows(
    base_url: str, primary: str, fallback: str, now_ns: Callable[[], int], rng: random.Random | None
) -> _Flows:
    try:
        keys = Keys.shared(primary, fallback)
    except ValueError as error:
        raise ConfigurationError(f"primary_key, fallback_key: {error}") from None
    return _Flows(base_url, keys, now_ns, rng or random.Random())


def _check_run_id(run_id: str) -> None:
    try:
        ulid_number(run_id)
    except ValueError:
        raise ValueError(f"run_id: {run_id!r} is not a ULID") from None
