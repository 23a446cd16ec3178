"""Sees what the code of handlers does outside of steps: input and output, and environment
variables.

Python reports input and output to an audit hook, which cannot be removed; so there is one for the
process, which looks only while a handler is watched. Not all of it is reported: neither what goes
over connections that are open, nor what an extension does by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, NamedTuple

from stephttp._run.current import current_call
from stephttp._run.places import here
from stephttp._run.scope import RunScope
from stephttp._run.step_call import StepCall
from stephttp.testing.findings import Place, excerpt
from stephttp.testing.places_in_code import handlers_frames, is_librarys, is_users

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ALWAYS = (
    "socket.connect", "socket.bind", "socket.sendto", "subprocess.Popen", "os.system", "os.exec",
    "os.posix_spawn", "os.spawn", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.putenv", "os.unsetenv", "shutil.",
    "sqlite3.connect", "urllib.Request", "http.client.connect", "ftplib.connect",
    "smtplib.connect", "imaplib.open", "poplib.connect", "tempfile.",
)  # fmt: skip
"""Events, or beginnings of their names, that have an effect, or ask another program."""
_READS = ("os.listdir", "os.scandir", "glob.glob")
_SILENT = ("importlib", "logging", "traceback", "linecache", "inspect", "tokenize", "warnings")
"""Modules of Python that read and write files for themselves."""


class Act(NamedTuple):
    """Something that code did outside of steps.

    Attributes:
        what: it, as text.
        place: the line of the user's code.
        code: the functions of the user that were at work.
    """

    what: str
    place: Place
    code: frozenset[CodeType]


class Acts:
    """What the code of watched calls has done outside of steps, by run."""

    def __init__(self) -> None:
        self.done: dict[str, list[Act]] = {}
        self.read: dict[str, dict[str, tuple[str | None, Act]]] = {}
        """The environment variables that were read in the present call, and their values."""


_watching: Acts | None = None
_hooked = False


@contextmanager
def acts_watched(acts: Acts) -> Generator[None]:
    """Note what handlers do while the block runs."""
    global _watching, _hooked  # noqa: PLW0603 - a hook of the process
    if not _hooked:
        sys.addaudithook(_heard)
        _hooked = True
    before, _watching = _watching, acts
    # Each reading of the environment, and nothing else, goes through this attribute.
    environ: Any = os.environ
    encode = environ.encodekey

    def note_and_encode(key: Any) -> Any:
        _note_read(key)
        return encode(key)

    environ.encodekey = note_and_encode
    try:
        yield
    finally:
        environ.encodekey = encode
        _watching = before


def _watched_run() -> str | None:
    """Return the run whose handler is at work, outside of the bodies of steps."""
    call = current_call.get()
    scope = None if call is None else call.made
    if not isinstance(scope, RunScope):
        return None
    place = here.get()
    inside = place if isinstance(place, StepCall) else getattr(place, "inside", None)
    return None if inside is not None else scope.run.run_id


def _heard(event: str, args: tuple[Any, ...]) -> None:
    acts = _watching
    if acts is None:
        return
    reads = event in _READS
    if event == "open":
        flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
        reads = not flags & _WRITES
    elif not reads and not event.startswith(_ALWAYS):
        return
    run_id = _watched_run()
    if run_id is None:
        return
    shown = ", ".join(excerpt(repr(one), 60) for one in args[:2])
    act = _act(sys._getframe(1), f"{event}({shown})", reads=reads)
    if act is not None:
        acts.done.setdefault(run_id, []).append(act)


def _act(frame: FrameType | None, what: str, *, reads: bool) -> Act | None:
    """Return what code of the user's did; `None` if a library did it for itself."""
    while frame is not None and not is_users(frame.f_code.co_filename):
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_SILENT) or "importlib" in frame.f_code.co_filename:
            return None
        if reads and is_librarys(frame.f_code):  # such as a template
            return None
        if module.startswith("stephttp."):
            return None
        frame = frame.f_back
    if frame is None:
        return None
    place = Place(frame.f_code.co_filename, frame.f_lineno)
    return Act(what, place, frozenset(one.f_code for one in handlers_frames(frame)))


def _note_read(key: Any) -> None:
    acts = _watching
    if acts is None or not isinstance(key, str):
        return
    run_id = _watched_run()
    if run_id is None:
        return
    act = _act(sys._getframe(2), key, reads=True)
    if act is not None:
        data: Any = os.environ._data  # type: ignore[attr-defined]
        raw = data.get(key.encode(sys.getfilesystemencoding(), "surrogateescape"))
        value = None if raw is None else os.fsdecode(raw)
        acts.read.setdefault(run_id, {})[key] = value, act
