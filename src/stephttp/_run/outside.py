"""Methods of `Provider` for webhooks, tasks and scripts: `send_event`, `send_signal`,
`cancel`, `get_run`, `result`, and their `_sync` twins.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stephttp._client.background import running_loop
from stephttp._client.flow import Flow
from stephttp._core.encoding import encode_value
from stephttp._run import sending_events
from stephttp._run.runtime import Runtime
from stephttp.errors import UsageError

if TYPE_CHECKING:
    from stephttp._client.run_calls import RunInfo
    from stephttp._client.run_results import RunResult


class Outside:
    """Events and signals for runs, and questions about them. The base of `Provider`.

    Everything here goes to the server at once, and needs no request. Inside a handler it would
    happen again in each call: use it in a step there, or `step.send_event`.
    """

    runtime: Runtime

    async def send_event(
        self, name: str, data: Mapping[str, Any] | None = None, *, id: str = "", ts: int = 0
    ) -> str:
        """Send an event; runs that wait for it continue.

        Args:
            name: what happened, for example `order/packed`.
            data: plain JSON.
            id: deduplicates: of two events with the same id the second has no effect.
            ts: when it happened, milliseconds since the epoch; 0 leaves it to the server.

        Returns:
            The server's id of it.

        Raises:
            ConfigurationError: no event key is configured.
            APIError: it could not be sent.
            TypeError: `data` is not a mapping.
            ValueError: the name is empty or reserved, or `data` has no JSON form.
        """
        return await self.runtime.drive(self._send_event(name, data, id, ts))

    def send_event_sync(
        self, name: str, data: Mapping[str, Any] | None = None, *, id: str = "", ts: int = 0
    ) -> str:
        """`send_event`, blocking.

        Args:
            name: what happened.
            data: plain JSON.
            id: deduplicates.
            ts: when it happened, milliseconds since the epoch.

        Returns:
            The server's id of it.
        """
        return self.runtime.drive_sync(self._send_event(name, data, id, ts))

    async def send_signal(self, name: str, data: Any = None) -> str:
        """Send a signal: the run that waits for it continues.

        Args:
            name: of the signal, as `step.wait_for_signal` names it.
            data: what has a JSON form.

        Returns:
            The id of the run that waited.

        Raises:
            SignalNotAwaitedError: no run waits for it; also where the server took it, but its
                answer was lost.
            APIError: it could not be sent.
            ValueError: the name is empty, or `data` has no JSON form.
        """
        return await self.runtime.drive(self._send_signal(name, data))

    def send_signal_sync(self, name: str, data: Any = None) -> str:
        """`send_signal`, blocking.

        Args:
            name: of the signal.
            data: what has a JSON form.

        Returns:
            The id of the run that waited.
        """
        return self.runtime.drive_sync(self._send_signal(name, data))

    async def cancel(self, run_id: str) -> None:
        """End a run as cancelled. A run that has ended stays as it is.

        Args:
            run_id: a ULID, as `current_run().id` and the header `x-run-id` have it.

        Raises:
            RunNotFoundError: the server does not have it.
            APIError: the server could not be asked.
            ValueError: `run_id` is not a ULID.
        """
        await self.runtime.drive(self._cancel(run_id))

    def cancel_sync(self, run_id: str) -> None:
        """`cancel`, blocking.

        Args:
            run_id: a ULID.
        """
        self.runtime.drive_sync(self._cancel(run_id))

    async def get_run(self, run_id: str) -> RunInfo:
        """Ask the server for a run.

        Args:
            run_id: a ULID.

        Returns:
            What it knows of the run.

        Raises:
            RunNotFoundError: it does not have it.
            APIError: it could not be asked.
            ValueError: `run_id` is not a ULID.
        """
        return await self.runtime.drive(self._get_run(run_id))

    def get_run_sync(self, run_id: str) -> RunInfo:
        """`get_run`, blocking.

        Args:
            run_id: a ULID.

        Returns:
            What the server knows of the run.
        """
        return self.runtime.drive_sync(self._get_run(run_id))

    async def result(self, run_id: str, *, timeout: timedelta | None = None) -> RunResult:
        """Wait for the end of a run, and return its handler's answer.

        Args:
            run_id: a ULID.
            timeout: how long to wait; `None` waits for as long as it takes, zero asks once.

        Returns:
            The answer that its caller gets, without cookies.

        Raises:
            RunFailedError: it has failed; its `result` is the answer.
            RunCancelledError: it was cancelled.
            ResultTimeoutError: it has not ended in time.
            RunNotFoundError: the server does not have it.
            APIError: the server could not be asked.
            TypeError: `timeout` is not a `timedelta`.
            ValueError: `run_id` is not a ULID.
        """
        return await self.runtime.drive(self._result(run_id, timeout))

    def result_sync(self, run_id: str, *, timeout: timedelta | None = None) -> RunResult:
        """`result`, blocking.

        Args:
            run_id: a ULID.
            timeout: how long to wait; `None` waits for as long as it takes.

        Returns:
            The answer that its caller gets, without cookies.

        Raises:
            UsageError: called on a running event loop, which the run may need.
        """
        if running_loop() is not None:
            raise UsageError(
                "result_sync would block the event loop, which the run may need; "
                "use `await provider.result(...)`"
            )
        return self.runtime.drive_sync(self._result(run_id, timeout))

    # Most programs need none of this, so it is imported when it is first used.

    def _send_event(self, name: str, data: Mapping[str, Any] | None, id: str, ts: int) -> Flow[str]:
        from stephttp._client.run_calls import prepared_event

        checkpoints = self.runtime.checkpoints
        key = sending_events.event_key(checkpoints)
        now_ms = self.runtime.now_ns() // 1_000_000
        ids = yield from sending_events.post(
            checkpoints, prepared_event(name, data, id, ts, now_ms), key
        )
        return ids[0]

    def _send_signal(self, name: str, data: Any) -> Flow[str]:
        from stephttp._client.run_calls import send_signal

        if not name:
            raise ValueError("name must not be empty")
        encoded = encode_value(data, f"signal {name!r}: data", None)
        return (yield from send_signal(name, encoded, *self._ways))

    def _cancel(self, run_id: str) -> Flow[None]:
        from stephttp._client.run_calls import cancel

        return cancel(run_id, *self._ways)

    def _get_run(self, run_id: str) -> Flow[RunInfo]:
        from stephttp._client.run_calls import get_run

        return get_run(run_id, *self._ways)

    def _result(self, run_id: str, timeout: timedelta | None) -> Flow[RunResult]:
        from stephttp._client.run_calls import result

        if timeout is not None and not isinstance(timeout, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"timeout must be a timedelta, not {timeout!r}")
        seconds = None if timeout is None else timeout.total_seconds()
        keys, rng = self._ways
        return result(run_id, seconds, keys, rng, self.runtime.monotonic)

    @property
    def _ways(self) -> Any:
        checkpoints = self.runtime.checkpoints
        return checkpoints.keys, checkpoints.rng
