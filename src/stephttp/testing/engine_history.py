"""Makes the history of a run from what the API of an engine says of it."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from stephttp._wire import capsule
from stephttp._wire.ids import CAPSULE, ULID_PATTERN
from stephttp._wire.stored_state import (
    STEPS,
    KnownStep,
    MemoKind,
    decode_memos,
    read_memo,
    read_steps,
)
from stephttp.errors import ConfigurationError
from stephttp.testing.history import (
    ExportedRequest,
    ExportedResponse,
    ExportedRun,
    ExportedStep,
    History,
    as_text,
)

_ULID = re.compile(ULID_PATTERN, re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def history_of(run: Mapping[str, Any], state: bytes, version: str) -> History:
    """Make the history of a run from what an engine says of it.

    Args:
        run: `RunInFull`, as the engine's API describes it.
        state: what the engine answers to an SDK that asks for the state of the run.
        version: of the stephttp that exports it.

    Returns:
        The history, with its secrets as far as they are there; see `masked`.

    Raises:
        ConfigurationError: what the engine says cannot be read.
    """
    described = _run(run)
    try:
        memos = decode_memos(state)
        names = read_steps(memos.pop(STEPS, None))
    except ValueError as error:
        raise ConfigurationError(f"run {described.id}: {error}") from None
    if names is None:
        raise ConfigurationError(
            "the engine does not say what steps it remembers; this needs a stephttp engine"
        )
    response = run.get("response")
    return History(
        described,
        _request(run["request"], memos.pop(CAPSULE, None)),
        _steps(memos, names),
        None if response is None else _response(response),
        exported_by=f"stephttp {version}",
    )


def _run(run: Mapping[str, Any]) -> ExportedRun:
    """Check what says which run this is: names of files and functions are made of it."""
    try:
        found = msgspec.convert(
            {
                "id": run["run_id"],
                "endpoint": run["function"],
                "status": run["state"],
                "began_at": run["began_at"],
                "of_function": run.get("started_by") is not None,
            },
            ExportedRun,
        )
    except (KeyError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"the engine does not describe the run: {error}") from None
    if not _ULID.fullmatch(found.id):
        raise ConfigurationError(f"the engine names a run {found.id[:64]!r}, which is not a ULID")
    if not _TIME.fullmatch(found.began_at):
        raise ConfigurationError(
            f"run {found.id}: it began at {found.began_at[:64]!r}, which is not a time (RFC 3339)"
        )
    return found


def _steps(memos: Mapping[str, Raw], names: Mapping[str, KnownStep]) -> list[ExportedStep]:
    found: list[ExportedStep] = []
    for key in dict.fromkeys((*memos, *names)):
        known, memo = names.get(key, KnownStep("")), memos.get(key, UNSET)
        if memo is not UNSET and read_memo(memo).kind is MemoKind.PENDING:
            memo = UNSET
        found.append(ExportedStep(key, known.id, known.index, known.op, known.branch, memo))
    return found


def _request(request: Mapping[str, Any], stored: Raw | None) -> ExportedRequest:
    body = request["body"]
    found = ExportedRequest(
        request["method"],
        request["path"],
        request["origin"],
        request["query"],
        request["content_type"],
        None if body is None else as_text(b64decode(body)),
        has_sealed=bool(request["sealed"]),
    )
    if stored is None:
        return found
    raw = read_memo(stored).raw
    try:
        kept = capsule.read(raw)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    secrets = capsule.Secrets() if kept.secrets is None else kept.secrets
    if secrets.body is not None:
        body = secrets.body
        found = msgspec.structs.replace(found, body=as_text(body))
    return msgspec.structs.replace(
        found,
        headers=[*kept.headers, *secrets.headers],
        client=kept.client,
        scheme=kept.scheme,
        seen_at=kept.seen_at,
        carried=kept.carried,
        has_sealed=kept.sealed is not None,
        sealed=Raw(bytes(raw)),
    )


def _response(response: Mapping[str, Any]) -> ExportedResponse:
    headers = [(one["name"], one["value"]) for one in response["headers"]]
    return ExportedResponse(response["status"], headers, as_text(b64decode(response["body"])))
