"""The exit codes of commands that speak with an engine, and the failure that has one."""

from __future__ import annotations

from enum import IntEnum

from stephttp.errors import StephttpError


class Exit(IntEnum):
    """Exit codes of the commands that speak with an engine. docs/cli.md lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    KEY = 4
    INTERRUPTED = 130


class RemoteError(StephttpError):
    """A failure of a command; `code` is its exit code.

    Attributes:
        status: of the engine's answer; 0 without one.
    """

    def __init__(self, message: str, code: Exit = Exit.FAILED, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
