"""The refusal of a request, as an exception. Its text names the field."""

from __future__ import annotations

from stephttp.errors import StephttpError

SUPERSEDED = "call: it was given up, and another one has taken its place"
TAKEN = "call: it was delivered twice, and another process works on it"


class Refused(StephttpError):
    """A request cannot be fulfilled; the text names the field.

    Attributes:
        status: the HTTP status that an API caller gets.
        damaged: whether the request was most likely changed on its way, so that it may be accepted
            when it is sent again.
    """

    def __init__(self, message: str, status: int = 400, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.damaged = damaged
