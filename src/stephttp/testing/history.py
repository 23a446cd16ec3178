"""The history of one run, and its JSON format (docs/deploys.md): its request, what the server
remembers of its steps, and its answer.

It is JSON, written by `stephttp runs export` and read by `replay`:

    format, version    "stephttp-history", 1
    run                id, endpoint, status, began_at
    request            method, origin, path, query, content_type, body, headers, client,
                       scheme, seen_at; sealed: the part of it that only the application can read
    steps              in the order in which they ended: hash, id, index, op, branch, memo; without
                       a memo a step is at work, or waits
    response           status, headers, body; null until the run has ended
    masked             whether secrets were replaced

A body is a text, or an object with the key `base64` where it is not UTF-8. A memo is what SDKs get
of the step (docs/protocol.md 5.3). Within a version, fields are added only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from stephttp._core.remembered import title_of
from stephttp._core.step_kinds import KINDS
from stephttp._wire import capsule
from stephttp._wire.http import SeenAt
from stephttp._wire.ids import CAPSULE, RESERVED, is_own
from stephttp._wire.json import UNREADABLE
from stephttp._wire.stored_state import (
    METHODS,
    PENDING,
    STEPS,
    KnownStep,
    MemoKind,
    read_memo,
)
from stephttp.errors import ConfigurationError

FORMAT = "stephttp-history"
VERSION = 1
ENDED = frozenset({"completed", "failed", "cancelled"})


class Encoded(Struct, frozen=True):
    """A body that is not UTF-8."""

    base64: bytes


class ExportedRun(Struct, frozen=True, omit_defaults=True):
    """The run: its id (a ULID), its endpoint, its state, and when its request came in (RFC 3339).

    Attributes:
        status: `running`, `waiting`, `completed`, `failed` or `cancelled`.
        of_function: whether an event started it: it is a run of a function of Inngest's SDKs.
    """

    id: str
    endpoint: str
    status: str
    began_at: str
    of_function: bool = False


class ExportedRequest(Struct, frozen=True):
    """The request that began the run.

    Attributes:
        body: `None`: the server was not sent it.
        headers: those that the SDK keeps for later calls.
        sealed: what the SDK keeps encrypted: the headers that give access to something. Left out
            of what is exported.
        has_sealed: whether there was such a part.
    """

    method: str
    path: str
    origin: str = ""
    query: str = ""
    content_type: str = ""
    body: str | Encoded | None = None
    headers: list[tuple[str, str]] = []
    client: tuple[str, int] | None = None
    scheme: str = "http"
    seen_at: SeenAt | None = None
    has_sealed: bool = False
    sealed: Raw | UnsetType = UNSET
    carried: dict[str, str] = {}


class ExportedStep(Struct, frozen=True):
    """A step that the server knows.

    Attributes:
        hash: what stands for it on the wire.
        id: as the user's code has it; empty for what the SDK keeps for itself.
        index: which use of its id it is, from 0.
        op: the op by which it was reported last.
        branch: of the handler; `?` where others were at a step at the same time.
        memo: what the server remembers; left out until it has ended.
    """

    hash: str
    id: str = ""
    index: int = 0
    op: str = ""
    branch: str = ""
    memo: Raw | UnsetType = UNSET

    @property
    def kind(self) -> str:
        """Its tool, such as `run` or `sleep`; empty if that is not known."""
        return KINDS.get(self.op, "")

    @property
    def title(self) -> str:
        """Its id, with the number of the use where it is not the first."""
        return title_of(self.id, self.index)

    @property
    def is_own(self) -> bool:
        """Whether it is one of the SDK's own."""
        return not self.id or is_own(self.hash, self.id)

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        kinds = (MemoKind.VALUE, MemoKind.ERROR)
        return self.memo is not UNSET and read_memo(self.memo).kind in kinds


class ExportedResponse(Struct, frozen=True):
    """The answer that the run ended with."""

    status: int
    headers: list[tuple[str, str]] = []
    body: str | Encoded = ""


class History(Struct, frozen=True):
    """The history of a run; see the module. `load` reads one, `dump` writes it."""

    run: ExportedRun
    request: ExportedRequest
    steps: list[ExportedStep]
    response: ExportedResponse | None = None
    masked: bool = False
    format: str = FORMAT
    version: int = VERSION
    exported_by: str = ""

    @classmethod
    def load(cls, source: str | PathLike[str] | Mapping[str, Any]) -> History:
        """Read a history.

        Args:
            source: the name of a file, the JSON itself, or what `json.loads` has made of it.

        Returns:
            The history.

        Raises:
            ConfigurationError: it cannot be read, is not a history, or has a newer version.
        """
        what = "history"
        try:
            if isinstance(source, Mapping):
                text = json.dumps(source).encode()
            elif isinstance(source, str) and source.lstrip().startswith("{"):
                text = source.encode()
            else:
                what = str(source)
                text = Path(source).read_bytes()
            head = msgspec.json.decode(text, type=_Head)
        except (OSError, *UNREADABLE) as error:
            raise ConfigurationError(f"{what}: this is not a history of a run: {error}") from None
        if head.format != FORMAT or head.version > VERSION:
            raise ConfigurationError(
                f"{what}: it has the format {head.format!r} in version {head.version}; this "
                f"stephttp reads {FORMAT!r} up to version {VERSION}"
            )
        try:
            return msgspec.json.decode(text, type=cls)
        except UNREADABLE as error:
            raise ConfigurationError(f"{what}: this history is damaged: {error}") from None

    def dump(self) -> str:
        """Return the history as JSON, one line for each step and field."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.run.status in ENDED

    @property
    def user_steps(self) -> list[ExportedStep]:
        """The steps of the user's code, in the order in which they ended."""
        return [step for step in self.steps if not step.is_own]

    @property
    def lacks_secrets(self) -> bool:
        """Whether the request had headers that are not in this history."""
        return self.masked or (self.request.has_sealed and self.request.sealed is UNSET)

    @property
    def cannot_be_sent(self) -> str:
        """Why its request cannot be sent again; empty if it can."""
        if self.run.of_function:
            return (
                f"{self.run.endpoint} is a function of Inngest's SDKs, which an event has started; "
                "only requests to endpoints are replayed"
            )
        request = self.request
        hidden = request.has_sealed and request.sealed is UNSET and request.body is None
        if hidden and request.method in METHODS:
            return (
                "the server was not sent the body of the request, and the encrypted one is left "
                "out of exports"
            )
        return ""

    def with_headers(self, headers: Mapping[str, str]) -> History:
        """Return the history of a request that had other headers.

        Args:
            headers: those that are added, or take the place of others.
        """
        names = {name.lower() for name in headers}
        kept = [pair for pair in self.request.headers if pair[0].lower() not in names]
        given = [(name.lower(), value) for name, value in headers.items()]
        request = msgspec.structs.replace(self.request, headers=[*kept, *given], sealed=UNSET)
        return msgspec.structs.replace(self, request=request)

    def state(self) -> bytes:
        """Return what a server answers to an SDK that asks for the state of the run."""
        pairs = [
            (step.hash, PENDING if step.memo is UNSET else bytes(step.memo)) for step in self.steps
            if step.memo is not UNSET or step.op not in _RETRIED
        ]  # fmt: skip
        named = {
            step.hash: KnownStep(step.op, step.id, step.index, step.branch)
            for step in self.steps
            if step.id and not step.id.startswith(RESERVED)
        }
        if self.request.headers or self.request.sealed is not UNSET:
            pairs.append((CAPSULE, b'{"data":' + bytes(self._kept()) + b"}"))
        pairs.append((STEPS, msgspec.json.encode(named)))
        return b"{%s}" % b",".join(msgspec.json.encode(key) + b":" + memo for key, memo in pairs)

    def _kept(self) -> Raw:
        """Return what the SDK keeps of the request, as it had stored it, or without secrets."""
        request = self.request
        if request.sealed is not UNSET:
            return request.sealed
        public = [pair for pair in request.headers if not capsule.is_secret(pair[0].encode())]
        secrets = [pair for pair in request.headers if capsule.is_secret(pair[0].encode())]
        kept = capsule.Capsule(public, request.client, request.scheme)
        kept.seen_at, kept.carried = request.seen_at, request.carried
        if secrets:
            kept.secrets = capsule.Secrets(secrets)
        return Raw(msgspec.json.encode(kept))


class _Head(Struct):
    format: str = ""
    version: int = 0


_RETRIED = frozenset({"StepError"})
"""Ops of steps that run in the application, and are neither done nor wait for the server."""


def as_text(body: bytes) -> str | Encoded:
    """Return a body as it stands in a history."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return Encoded(body)


def as_bytes(body: str | Encoded | None) -> bytes:
    """Return a body as it was sent; empty where the server was not sent it."""
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else body.base64
