"""Checkpoints: reports of runs, without bodies that are too large, and where the server re-enters.

How a run leaves its first request is in `suspend`, how the server calls again in `reentry`.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct, field

from stephttp._client import api_calls, batch_calls
from stephttp._client.flow import Flow, Keys, send
from stephttp._client.new_run import (
    REQUEST_VERSION,
    CheckpointNewRunRequest,
    IdempotencyClaim,
    NewAPIRunData,
    RunEvent,
)
from stephttp._client.outbox import Item
from stephttp._client.outbox_batch import Parcel
from stephttp._core import reports
from stephttp._core.run import Run
from stephttp._run import proxies
from stephttp._run.reentry_guard import Deliveries
from stephttp._run.sealing import Sealer
from stephttp._wire import capsule, limits_of_run, stored_state
from stephttp._wire.http import Request, Response
from stephttp._wire.ids import CAPSULE, CAPSULE_NAME
from stephttp._wire.json import encode_struct
from stephttp._wire.limits import MAX_CHECKPOINT_BYTES, MAX_RECORDED_BYTES, MAX_RETRIES
from stephttp._wire.opcodes import Op, OpCode, Userland
from stephttp._wire.paths import with_prefix
from stephttp._wire.stored_state import CallId
from stephttp.errors import APIStatusError
from stephttp.options import Settings

logger = logging.getLogger("stephttp")

_BESIDE_BODY = 256 * 1024
"""Bytes of a first checkpoint for everything but the body."""

NEVER_ACCEPTED = frozenset({400, 413, 422})
"""Statuses by which a server refuses a checkpoint that it would refuse again."""

_HOST = re.compile(r"[0-9A-Za-z._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")


class Checkpoints(Struct, frozen=True):
    """Encodes and sends the checkpoints of a provider's runs."""

    settings: Settings
    keys: Keys
    now_ns: Callable[[], int]
    rng: random.Random
    sealer: Sealer = field(default_factory=lambda: Sealer(()))
    deliveries: Deliveries = field(default_factory=Deliveries)

    @property
    def is_plain(self) -> bool:
        """Whether the server is known not to be ours; see `plain_server`."""
        features = self.keys.features
        return features is not None and not features

    def portions(self, ops: list[Op], already: int = 0) -> list[list[Op]]:
        """Cut `ops` into lists that each fit into one checkpoint; see `api_calls.portions`."""
        return api_calls.portions(ops, already, api_calls.MOST_OPS if self.is_plain else None)

    def _storable(self, ops: list[Op]) -> list[Op]:
        """Return ops so that storing them leads to no call that is not wanted."""
        if not self.is_plain:
            return ops
        from stephttp._core.plain_opening import storable

        return storable(ops)

    def largest_body(self, run: Run) -> int:
        """Return how many bytes the request of a run that is to wait may have in its body."""
        limit = self.settings.max_body_bytes
        if not self.is_plain:
            return limit
        # Base64 adds a third, and encryption with base64 a third once more.
        encoded = MAX_CHECKPOINT_BYTES - _BESIDE_BODY
        hidden = run.opts.omit_request_body
        return min(limit, encoded * 9 // 16 if hidden else encoded * 3 // 4)

    def first_checkpoint(
        self,
        run: Run,
        request: Request,
        ops: list[Op],
        lease: int | None = None,
        claim: IdempotencyClaim | None = None,
        *,
        within_limits: bool = False,
        at_ns: int | None = None,
    ) -> bytes:
        """Encode the checkpoint by which the server gets to know a run.

        Args:
            within_limits: it is only to be opened if its limits have room for the first call.
            at_ns: when that was of which it tells; `None`: now.
        """
        body = None if run.opts.omit_request_body else request.body or None
        features, ours, limits = self.keys.features, run.declared_retries, run.limits
        if limits is not None and features is not None and limits_of_run.FEATURE not in features:
            limits = None
        reads = stored_state.FEATURE in (features or ())
        if features is not None and not features:
            ops = self._storable(ops)
        event = RunEvent(
            NewAPIRunData(
                domain=origin_of(request, self.settings),
                # One that calls runs of an endpoint by HEAD would lose their results (M2).
                method="GET" if request.method == "HEAD" and not reads else request.method,
                path=path_for(request, self.settings),
                fn=run.opts.id or request.endpoint,
                ip=caller_of(request, self.settings),
                content_type=request.header(b"content-type"),
                query_params=request.query,
                body=body,
            ),
            ts=(self.now_ns() if at_ns is None else at_ns) // 1_000_000,
        )
        return encode_struct(
            CheckpointNewRunRequest(
                run.run_id,
                event,
                ops,
                # Another server keeps the number for all runs of the endpoint (R1).
                ours if features else MAX_RETRIES,
                REQUEST_VERSION,
                lease=lease,
                claim=claim,
                reads_state=reads,
                process=self.deliveries.process if reads else "",
                own_retries=ours if features is None else None,
                limits=limits,
                within_limits=within_limits,
            )
        )

    def further_checkpoint(self, run: Run, ops: list[Op], lease: int | None) -> bytes:
        """Encode a checkpoint of a run that the server knows."""
        ops = self._storable(ops)
        return api_calls.checkpoint_steps(run.run_id, ops, self.now_ns() // 1_000_000, lease)

    def remember(self, run: Run, request: Request, ops: Sequence[Op] = ()) -> Op:
        """Return the pseudo-step that keeps what the server does not restore of a request.

        Args:
            ops: what is reported with it; which steps have failed matters later on.
        """
        seal = self.sealer.seal(run.run_id) if self.sealer.has_keys else None
        hides = run.opts.omit_request_body and (self.settings.dev or seal is not None)
        kept = capsule.pack(
            request,
            self.settings.restored_headers,
            seal=seal,
            keep_open=self.settings.dev,
            hidden_body=request.body if hides and request.body else None,
            failing=[op.id for op in ops if op.op is OpCode.STEP_ERROR],
            carried=run.carried,
        )
        return Op(
            OpCode.STEP_RUN,
            CAPSULE,
            CAPSULE_NAME,
            CAPSULE_NAME,
            data=msgspec.Raw(encode_struct(kept)),
            userland=Userland(CAPSULE_NAME),
        )

    def completed(
        self, response: Response, *, duration_ns: int, error: str | None, exact: bool = False
    ) -> Op:
        """Return the op that ends a run whose caller has its answer.

        Args:
            exact: others will get this answer as well, from our engine.
        """
        return reports.run_complete(
            response, duration_ns=duration_ns, error=error, raw_allowed=exact, lossy=not exact
        )

    def deliver(
        self, batch: Sequence[tuple[Item, Parcel]]
    ) -> Flow[Sequence[APIStatusError | None]]:
        """Send checkpoints of the background: one alone, many as a batch.

        Returns:
            What became of each; `None`: taken.
        """
        if len(batch) == 1:
            item, parcel = batch[0]
            answer = yield from send(api_calls.post(parcel.path, parcel.body), self.keys, self.rng)
            item.answered(answer.body)
            return [None]
        call = batch_calls.post_batch(parcel.body for _, parcel in batch)
        answer = yield from send(call, self.keys, self.rng)
        return batch_calls.read_batch(answer, len(batch))

    def takes_batches(self) -> bool | None:
        """Whether the server takes many checkpoints in one request; `None` while unknown."""
        features = self.keys.features
        return None if features is None else "batch" in features

    def renew(self, run_ids: list[str], lease: int) -> Flow[list[str]]:
        """Report that this process lives. Returns the runs that are not its own any more."""
        answer = yield from send(batch_calls.post_renewal(run_ids, lease), self.keys, self.rng)
        return batch_calls.read_renewal(answer)

    def post_steps(self, run: Run, ops: list[Op], call_id: CallId | None = None) -> Flow[None]:
        """Send ops of a run that the server knows.

        Args:
            call_id: the call of the engine that they are of, where it fences those.

        Raises:
            APIError: they could not be stored.
        """
        ops = self._storable(ops)
        call = api_calls.post_steps(run.run_id, ops, self.now_ns() // 1_000_000, call=call_id)
        yield from send(call, self.keys, self.rng)


def shorten(request: Request) -> None:
    """Leave a large body out of the record of a run that needs it no more: it never waited."""
    if len(request.body) > MAX_RECORDED_BYTES:
        request.body = b""


def origin_of(request: Request, settings: Settings) -> str:
    """Return the origin at which the server is to re-enter this API: `scheme://host[:port]`.

    Only configuration is trusted. In development the request says it, and forwarded headers count
    where a trusted proxy sent them.
    """
    if not settings.origin_from_request:
        return settings.domain
    scheme, host = request.scheme, request.header(b"host")
    if settings.trusted_proxies:
        scheme, host = proxies.origin_before(request, settings.trusted_proxies, (scheme, host))
    return _origin(scheme, host) or settings.domain


def callers_origin(request: Request, settings: Settings) -> str:
    """Return the origin at which the caller of a request reaches this API."""
    return origin_of(request, settings) if settings.origin_from_request else settings.public_origin


def path_for(request: Request, settings: Settings) -> str:
    """Return the path at which the server is to call this API, at `origin_of`.

    That is the one that was called, without what proxies took off it. At a `serve_origin` they do
    so again, so the server has to put it in front.
    """
    prefix = settings.serve_prefix
    if prefix is None:
        prefix = request.root_path if settings.serves_at_proxy else ""
    return with_prefix(request.path, prefix) if prefix else request.path


@lru_cache(maxsize=256)
def _origin(scheme: str, host: str) -> str:
    """Return an empty text where the parts make no origin."""
    if scheme not in ("http", "https") or not _HOST.fullmatch(host):
        return ""
    return f"{scheme}://{host}"


def caller_of(request: Request, settings: Settings) -> str:
    """Return the address that the request came from; empty where the server does not say it."""
    if request.client is None:
        return ""
    if settings.trusted_proxies:
        return proxies.caller_before(request.client[0], request, settings.trusted_proxies)
    return request.client[0]
