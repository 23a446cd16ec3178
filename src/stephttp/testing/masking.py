"""Masked histories (`--mask`): replaces the secrets in a history, so that it can be kept and shown.

Secrets are headers that give access to something, and what stands in a body, a query, a result or
a text inside of these under a name such as `password` or `api_key` (see `secret_texts`). Each value
gets one text that stands for it wherever it appears, also in the ids of steps, so that a masked
history replays as the run itself did.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from stephttp._wire import capsule
from stephttp._wire.http import SeenAt
from stephttp._wire.ids import hash_step_id, types_id
from stephttp.testing.history import (
    ExportedRequest,
    ExportedResponse,
    ExportedStep,
    History,
    as_bytes,
)
from stephttp.testing.masks import MASK, Masks
from stephttp.testing.readable_texts import ReadableBody


def mask(history: History, names: Collection[str] = ()) -> History:
    """Return a history without its secrets.

    Args:
        history: the history.
        names: of further fields whose values are not to be shown, in any spelling.
    """
    masks = Masks(names)
    request, response = history.request, history.response
    masks.look_at_body(_read(request), request.content_type)
    masks.look_at_query(request.query)
    for step in history.steps:
        if step.memo is not UNSET:
            masks.look_at(msgspec.json.decode(step.memo))
    if response is not None:
        masks.look_at_body(_read(response), "")
        masks.look_at_headers(response.headers, masks.is_secret)
    masks.look_at_headers(request.headers, lambda name: capsule.is_secret(name.encode()))
    masks.look_at_headers(list(request.carried.items()), lambda _: True)
    return replace(
        history,
        request=_request(request, masks),
        steps=_steps(history.steps, masks),
        response=None if history.response is None else _response(history.response, masks),
        masked=True,
    )


def _read(message: ExportedRequest | ExportedResponse) -> ReadableBody:
    content_type = message.content_type if isinstance(message, ExportedRequest) else ""
    return ReadableBody(as_bytes(message.body), content_type, message.headers)


def _request(request: ExportedRequest, masks: Masks) -> ExportedRequest:
    headers = [
        (name, MASK if capsule.is_secret(name.encode()) else masks.text(value))
        for name, value in request.headers
    ]
    seen = request.seen_at
    return replace(
        request,
        path=masks.text(request.path),
        query=masks.query(request.query),
        headers=headers,
        body=masks.body(request.body, _read(request), request.content_type),
        sealed=UNSET,
        carried=dict.fromkeys(request.carried, MASK),
        seen_at=None if seen is None else _seen_at(seen, masks),
    )


def _seen_at(seen: SeenAt, masks: Masks) -> SeenAt:
    return SeenAt(*map(masks.text, (seen.root_path, seen.path, seen.raw_path, seen.called)))


def _response(response: ExportedResponse, masks: Masks) -> ExportedResponse:
    headers = [(name, masks.response_header(name, value)) for name, value in response.headers]
    body = masks.body(response.body, _read(response), "")
    assert body is not None
    return ExportedResponse(response.status, headers, body)


def _steps(steps: list[ExportedStep], masks: Masks) -> list[ExportedStep]:
    """Return the steps; those whose ids hold secrets have other hashes then."""
    hashes: dict[str, str] = {}
    for step in steps:
        if step.id and (text := masks.text(step.id)) != step.id:
            new = hash_step_id(text, step.index)
            hashes |= {step.hash: new, types_id(step.hash): types_id(new)}
    return [
        replace(
            step,
            hash=hashes.get(step.hash, step.hash),
            id=masks.text(step.id),
            memo=_memo(step, masks.value, hashes),
        )
        for step in steps
    ]


def _memo(
    step: ExportedStep, masked: Callable[[Any], Any], hashes: dict[str, str]
) -> Raw | UnsetType:
    if step.memo is UNSET:
        return UNSET
    memo = masked(msgspec.json.decode(step.memo))
    raw = msgspec.json.encode(memo)
    if step.is_own:
        for old, new in hashes.items():
            raw = raw.replace(old.encode(), new.encode())
    return Raw(raw)
