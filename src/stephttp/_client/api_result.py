"""`APIResult`: the end of a run, for those who speak the checkpoint API by hand."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Raw, Struct, field

from stephttp._core.reports import ResultData
from stephttp._wire.ids import COMPLETE
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import Op, OpCode


class APIResult(Struct):
    """The answer of an API, as the end of a run.

    Attributes:
        status_code: HTTP status (`status` on the wire; docs/protocol.md 7.2).
        headers: one value each.
        body: a server stores text only; `None` is empty.
        duration: how long the handler took.
        error: why the run failed, such as a step that failed for good.
    """

    status_code: int = field(name="status")
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    duration: timedelta = timedelta()
    error: str = ""

    def op(self) -> Op:
        """Return the op that ends a run with this answer, for a checkpoint.

        A real server shows only the body of such a result, so status and headers travel inside
        it (docs/protocol.md 7.3).

        Raises:
            ValueError: the body is not UTF-8.
        """
        try:
            body = (self.body or b"").decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"APIResult.body: a server stores UTF-8 text only: {error}") from None
        inner = {"status": self.status_code, "headers": self.headers, "body": body}
        data = ResultData(
            self.status_code,
            self.headers,
            encode_struct({"data": inner}).decode(),
            self.duration // timedelta(microseconds=1) * 1_000,
            self.error or None,
        )
        return Op(OpCode.RUN_COMPLETE, COMPLETE, data=Raw(encode_struct(data)))
