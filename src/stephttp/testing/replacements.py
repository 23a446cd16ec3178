"""Replaces texts inside of others, in one pass: a history may hold thousands of secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

_FEW = 50
"""Beginnings that are searched for one after the other."""


class Replacements:
    """What stands for texts, wherever these appear.

    Args:
        by_text: by each text what stands for it.
    """

    def __init__(self, by_text: Mapping[str, str]) -> None:
        self._by_text = by_text
        self._shortest = min(map(len, by_text), default=0)
        self._lengths: dict[str, set[int]] = {}
        """By their first characters, as many as the shortest has: how long texts are."""
        for text in by_text:
            self._lengths.setdefault(text[: self._shortest], set()).add(len(text))

    def made_in(self, text: str) -> str:
        """Return a text with all of them replaced; where two overlap, the longer one, and of two
        that are as long the one that comes first."""
        by_size: dict[int, list[int]] = {}
        for start in self._starts(text):
            for size in self._lengths[text[start : start + self._shortest]]:
                by_size.setdefault(size, []).append(start)
        if not by_size:
            return text
        taken = bytearray(len(text))
        parts: list[tuple[int, int, str]] = []
        for size in sorted(by_size, reverse=True):
            for start in by_size[size]:
                end = start + size
                # What was taken so far is as long at least, so it holds one of the two ends.
                if end > len(text) or taken[start] or taken[end - 1]:
                    continue
                if (new := self._by_text.get(text[start:end])) is not None:
                    taken[start:end] = b"\1" * size
                    parts.append((start, end, new))
        return with_parts(text, sorted(parts))

    def _starts(self, text: str) -> list[int]:
        """Return where one may begin: several searches are faster than a look at each place."""
        lengths, size = self._lengths, self._shortest
        if len(lengths) <= _FEW:
            return sorted(start for begin in lengths for start in _found(text, begin))
        places = range(len(text) - size + 1)
        return [start for start in places if text[start : start + size] in lengths]


def _found(text: str, part: str) -> Iterator[int]:
    start = text.find(part)
    while start >= 0:
        yield start
        start = text.find(part, start + 1)


def with_parts(text: str, parts: Iterable[tuple[int, int, str]]) -> str:
    """Return a text with other parts.

    Args:
        text: the text.
        parts: where each begins and ends, and what takes its place; in their order, and apart.
    """
    pieces: list[str] = []
    done = 0
    for start, end, new in parts:
        pieces += text[done:start], new
        done = end
    return "".join([*pieces, text[done:]])
