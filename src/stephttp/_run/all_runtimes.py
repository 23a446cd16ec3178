"""All providers of this process: the ids of their endpoints, and what they do in a fork
(preloading servers).
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stephttp._run.runtime import Runtime

_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()


def add(runtime: Runtime) -> None:
    """Count a runtime among those of this process, as long as it is in use."""
    _runtimes.add(runtime)


def is_endpoint(id: str) -> bool:
    """Return whether an id is that of a decorated handler, of any provider in this process."""
    return any(id in one.endpoint_ids for one in _runtimes.copy())


def _before_fork() -> None:
    for runtime in _runtimes:
        runtime.preload_before_fork()


def _after_fork() -> None:
    for runtime in _runtimes:
        runtime.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
