"""Path prefixes of an API behind a proxy that takes a prefix off them, and of mounted
applications.
"""

from __future__ import annotations

from collections.abc import Iterator


def is_below(path: str, prefix: str) -> bool:
    """Return whether a path has this prefix, as whole segments."""
    return path == prefix or path.startswith(f"{prefix}/")


def with_prefix(path: str, prefix: str) -> str:
    """Return a path with this prefix, unless it has it."""
    return path if not prefix or is_below(path, prefix) else prefix + path


def without_prefix(path: str, prefix: str) -> str:
    """Return a path without this prefix, if it has it."""
    return (path[len(prefix) :] or "/") if prefix and is_below(path, prefix) else path


def as_called(path: str, *prefixes: str) -> Iterator[str]:
    """Return the paths that a caller may have called, where proxies and servers add one of these
    prefixes, or take it off."""
    yield path
    for prefix in filter(None, prefixes):
        yield prefix + path
        if is_below(path, prefix):
            yield without_prefix(path, prefix)
