"""The secrets that stand in values, texts and bodies of a history, and what stands for each
of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlencode

from stephttp.testing.history import Encoded, as_text
from stephttp.testing.readable_texts import ReadableBody, as_json, json_in
from stephttp.testing.replacements import Replacements, with_parts
from stephttp.testing.secret_texts import (
    hides_numbers,
    hides_something,
    names_secret,
    parts,
    plain_name,
    spans,
)

MASK = "masked"
_SHORTEST, _SHORTEST_NAMED = 8, 3
"""Characters from which on a secret is replaced inside of other texts; one of a field that was
named."""
_FORM = "application/x-www-form-urlencoded"
_PART = re.compile(
    r'([; ]name="?([^";\r\n]*)"?[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n)(.*?)(?=\r?\n--)',
    re.DOTALL,
)


class Masks:
    """The secrets that were found, and what stands for them."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(map(plain_name, names))
        self._texts: dict[str, str] = {}
        self._named: set[str] = set()
        """Secrets of fields that were named."""

    def look_at(self, value: Any, *, name: str = "", secret: bool = False) -> None:
        """Find the secrets in a value.

        Args:
            value: the value, as JSON has it.
            name: of the field or header that it stands in.
            secret: whether all of it is.
        """
        secret = secret or self.is_secret(name)
        if isinstance(value, dict):
            for inner_name, inner in value.items():
                shown = name if self._is_named(name) else inner_name
                self.look_at(inner, name=shown, secret=secret)
        elif isinstance(value, list):
            for inner in value:
                self.look_at(inner, name=name, secret=secret)
        elif isinstance(value, str):
            if secret:
                for part in (value, *parts(value, name)):
                    self._note(part, named=self._is_named(name))
            self._look_at_text(value, secret=secret)

    def _look_at_text(self, text: str, *, secret: bool) -> None:
        inner = json_in(text)
        if inner is not None:
            self.look_at(inner, secret=secret)
            return
        for start, end, name in spans(text, self.is_secret):
            self.look_at(text[start:end], name=name, secret=True)
            self._note(unquote_plus(text[start:end], errors="surrogateescape"))

    def look_at_headers(
        self, headers: list[tuple[str, str]], is_secret: Callable[[str], bool]
    ) -> None:
        """Find the secrets in headers: short ones only where the name is known."""
        for name, value in headers:
            known = self.is_secret(name)
            secret = known or (is_secret(name) and len(value) >= _SHORTEST)
            self.look_at(value, name=name, secret=secret)

    def look_at_query(self, query: str) -> None:
        """Find the secrets in a query, or in a form."""
        for name, value in _pairs(query):
            self.look_at(value, name=name)

    def look_at_body(self, body: ReadableBody, content_type: str) -> None:
        """Find the secrets in a body."""
        if (text := body.text) is None:
            return
        if content_type.startswith(_FORM):
            self.look_at_query(text)
            return
        for _, name, value in _PART.findall(text) if text.startswith("--") else ():
            self.look_at(value, name=name)
        self.look_at(text)

    def _note(self, value: str, *, named: bool = False) -> None:
        if hides_something(value):
            self._texts.setdefault(value, f"{MASK}-{len(self._texts) + 1}")
            if named:
                self._named.add(value)

    def value(self, value: Any, *, number: bool = False) -> Any:
        """Return a value with its secrets replaced."""
        if isinstance(value, dict):
            return {
                self.text(name): self.value(inner, number=number or self._hides_numbers(name))
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self.value(inner, number=number) for inner in value]
        if isinstance(value, str):
            return self.text(value)
        return 0 if number and type(value) in (int, float) else value

    def text(self, text: str) -> str:
        """Return a text with the secrets in it replaced."""
        if text in self._texts:
            return self._texts[text]
        inner = json_in(text)
        if inner is not None:
            new = self.value(inner)
            return text if new == inner else as_json(new, inner, like=text)
        parts: list[tuple[int, int, str]] = []
        ends = len(text)
        for start, end, _ in sorted(spans(text, self.is_secret), reverse=True):
            if end <= ends and (mask := self._texts.get(text[start:end])) is not None:
                parts.append((start, end, mask))
                ends = start
        return self._anywhere.made_in(with_parts(text, reversed(parts)))

    @cached_property
    def _anywhere(self) -> Replacements:
        """What is replaced inside of texts, once all secrets are known."""
        by_text: dict[str, str] = {}
        for secret in sorted(self._texts, key=len, reverse=True):
            shortest = _SHORTEST_NAMED if secret in self._named else _SHORTEST
            if len(secret) >= shortest:
                for spelling in _spellings(secret):
                    by_text.setdefault(spelling, self._texts[secret])
        return Replacements(by_text)

    def query(self, query: str) -> str:
        """Return a query, or a form, with its secrets replaced."""
        pairs = _pairs(query)
        new = [(name, self.text(value)) for name, value in pairs]
        return query if new == pairs else urlencode(new, errors="surrogateescape")

    def body(
        self, body: str | Encoded | None, read: ReadableBody, content_type: str
    ) -> str | Encoded | None:
        """Return a body with its secrets replaced; all of it where it cannot be read."""
        if body is None:
            return None
        if (text := read.text) is None:
            return MASK
        if content_type.startswith(_FORM):
            new = self.query(text)
        elif text.startswith("--"):  # it has parts
            new = self.text(_PART.sub(lambda part: part[1] + self.text(part[3]), text))
        else:
            new = self.text(text)
        return body if new == text else as_text(read.written(new))

    def response_header(self, name: str, value: str) -> str:
        """Return the value of a header of a response with its secrets replaced."""
        return MASK if self.is_secret(name) else self.text(value)

    def is_secret(self, name: str) -> bool:
        """Return whether values under a name are secret."""
        return self._is_named(name) or names_secret(plain_name(name))

    def _is_named(self, name: str) -> bool:
        return plain_name(name) in self._names

    def _hides_numbers(self, name: str) -> bool:
        return self._is_named(name) or hides_numbers(plain_name(name))


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True, errors="surrogateescape")


def _spellings(secret: str) -> Iterable[str]:
    kept = "surrogateescape"
    spellings = (secret, quote_plus(secret, errors=kept), quote(secret, errors=kept))
    return dict.fromkeys((*spellings, json.dumps(secret)[1:-1]))
