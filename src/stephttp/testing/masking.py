"""Replaces the secrets in a history, so that it can be kept and shown.

Secrets are headers that give access to something, and what stands in a body, a query or a result
under a name such as `password` or `api_key`. Each value gets one text that stands for it wherever
it appears, also in the ids of steps, so that a masked history replays as the run itself did.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlencode

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from stephttp._wire import capsule
from stephttp._wire.ids import hash_step_id, types_id
from stephttp.testing.history import (
    Encoded,
    ExportedRequest,
    ExportedResponse,
    ExportedStep,
    History,
)

MASK = "masked"
_SECRET = re.compile(
    r"password|passwd|passphrase|secret|token|apikey|accesskey|privatekey|credential"
    r"|authorization|cookie|sessionid|cardnumber|iban",
)
_SECRET_ALONE = frozenset({"pin", "otp", "cvv", "cvc", "ssn", "pan", "auth", "session", "pwd"})
_NUMBERS = frozenset({"pin", "otp", "cvv", "cvc", "ssn", "pan", "cardnumber", "password"})
"""Names whose numbers are secret, too; others count something (`prompt_tokens`)."""
_SHORTEST, _SHORTEST_NAMED = 8, 3
"""Characters from which on a secret is replaced inside of other texts; one of a field that was
named."""
_FORM = "application/x-www-form-urlencoded"
_PART = re.compile(r'(name="([^"]*)"(?:\r?\n[^\r\n]+)*\r?\n\r?\n)(.*?)(?=\r?\n--)', re.DOTALL)


def mask(history: History, names: Collection[str] = ()) -> History:
    """Return a history without its secrets.

    Args:
        history: the history.
        names: of further fields whose values are not to be shown, in any spelling.
    """
    masks = _Masks(names)
    request = history.request
    masks.look_at_body(request.body, request.content_type)
    masks.look_at_query(request.query)
    for step in history.steps:
        if step.memo is not UNSET:
            masks.look_at(msgspec.json.decode(step.memo))
    if history.response is not None:
        masks.look_at_body(history.response.body, "")
    return replace(
        history,
        request=_request(request, masks),
        steps=_steps(history.steps, masks),
        response=None if history.response is None else _response(history.response, masks),
        masked=True,
    )


class _Masks:
    """The secrets that were found, and what stands for them."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(map(_plain, names))
        self._texts: dict[str, str] = {}
        self._named: set[str] = set()
        """Secrets of fields that were named."""

    def look_at(self, value: Any, *, secret: bool = False, named: bool = False) -> None:
        """Find the secrets in a value."""
        if isinstance(value, dict):
            for name, inner in value.items():
                found = secret or self._is_secret(name)
                self.look_at(inner, secret=found, named=named or self._is_named(name))
        elif isinstance(value, list):
            for inner in value:
                self.look_at(inner, secret=secret, named=named)
        elif secret and isinstance(value, str) and value:
            self._texts.setdefault(value, f"{MASK}-{len(self._texts) + 1}")
            if named:
                self._named.add(value)

    def look_at_query(self, query: str) -> None:
        """Find the secrets in a query, or in a form."""
        for name, value in parse_qsl(query, keep_blank_values=True):
            self.look_at({name: value})

    def look_at_body(self, body: str | Encoded | None, content_type: str) -> None:
        """Find the secrets in a body."""
        if not isinstance(body, str):
            return
        if content_type.startswith(_FORM):
            self.look_at_query(body)
            return
        for _, name, value in _PART.findall(body):
            self.look_at({name: value})
        try:
            self.look_at(json.loads(body))
        except ValueError:  # it is not JSON
            pass

    def value(self, value: Any, *, secret: bool = False, number: bool = False) -> Any:
        """Return a value with its secrets replaced."""
        if isinstance(value, dict):
            return {
                self.text(name): self.value(
                    inner,
                    secret=secret or self._is_secret(name),
                    number=number or self._hides_numbers(name),
                )
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self.value(inner, secret=secret, number=number) for inner in value]
        if isinstance(value, str):
            return self.text(value)
        return 0 if number and type(value) in (int, float) else value

    def text(self, text: str) -> str:
        """Return a text with the secrets in it replaced."""
        if text in self._texts:
            return self._texts[text]
        for secret in sorted(self._texts, key=len, reverse=True):
            shortest = _SHORTEST_NAMED if secret in self._named else _SHORTEST
            if len(secret) >= shortest:
                for spelling in dict.fromkeys((secret, quote_plus(secret), quote(secret))):
                    text = text.replace(spelling, self._texts[secret])
        return text

    def query(self, query: str) -> str:
        """Return a query, or a form, with its secrets replaced."""
        pairs = parse_qsl(query, keep_blank_values=True)
        new = [(name, self.text(value)) for name, value in pairs]
        return query if new == pairs else urlencode(new)

    def body(self, body: str | Encoded | None, content_type: str) -> str | Encoded | None:
        """Return a body with its secrets replaced."""
        if not isinstance(body, str):
            return body
        if content_type.startswith(_FORM):
            return self.query(body)
        try:
            value = json.loads(body)
        except ValueError:
            parts = _PART.sub(lambda part: part[1] + self.text(part[3]), body)
            return self.text(parts)
        new = self.value(value)
        return body if new == value else json.dumps(new, ensure_ascii=False, separators=(",", ":"))

    def _is_named(self, name: str) -> bool:
        return _plain(name) in self._names

    def _is_secret(self, name: str) -> bool:
        plain = _plain(name)
        return plain in self._names or plain in _SECRET_ALONE or bool(_SECRET.search(plain))

    def _hides_numbers(self, name: str) -> bool:
        return (plain := _plain(name)) in self._names or plain in _NUMBERS


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _request(request: ExportedRequest, masks: _Masks) -> ExportedRequest:
    headers = [
        (name, MASK if capsule.is_secret(name.encode()) else masks.text(value))
        for name, value in request.headers
    ]
    return replace(
        request,
        path=masks.text(request.path),
        query=masks.query(request.query),
        headers=headers,
        body=masks.body(request.body, request.content_type),
        sealed=UNSET,
        carried=dict.fromkeys(request.carried, MASK),
    )


def _response(response: ExportedResponse, masks: _Masks) -> ExportedResponse:
    headers = [(name, masks.text(value)) for name, value in response.headers]
    body = masks.body(response.body, "")
    assert body is not None
    return ExportedResponse(response.status, headers, body)


def _steps(steps: list[ExportedStep], masks: _Masks) -> list[ExportedStep]:
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
