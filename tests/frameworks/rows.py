"""The applications of the matrix.

Each serves the same routes in the manner of its framework (see `test_matrix.py` for what they
answer). To add one: write `apps/<name>.py` with the application as `app`, made durable with
`work.provider`, and a row here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

UVICORN = ("-m", "uvicorn", "--port", "0", "--no-access-log")
HYPERCORN = ("-m", "hypercorn", "--bind", "127.0.0.1:0")


@dataclass(frozen=True)
class Row:
    """One application under one server.

    Attributes:
        name: of the row.
        module: in `tests/frameworks/apps`.
        server: arguments of Python that serve the application named behind them, on a port that
            the kernel chooses, and say so.
        listening: what the server then says; the group is the port.
    """

    name: str
    module: str
    server: tuple[str, ...] = UVICORN
    listening: str = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"

    @property
    def command(self) -> list[str]:
        return [sys.executable, *self.server, f"tests.frameworks.apps.{self.module}:app"]


ON_HYPERCORN = r"Running on http://127\.0\.0\.1:(\d+)"

ROWS = [
    Row("fastapi", "fastapi_async"),
    Row("fastapi-def", "fastapi_def"),
    Row("starlette", "starlette_app"),
    Row("litestar", "litestar_app"),
    Row("quart", "quart_app", HYPERCORN, ON_HYPERCORN),
    Row("django", "django_app"),
    Row("falcon", "falcon_app"),
    Row("plain", "plain_app"),
    Row("plain-hypercorn", "plain_app", HYPERCORN, ON_HYPERCORN),
]
