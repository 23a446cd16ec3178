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
GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0")
GTHREAD = (*GUNICORN, "--worker-class", "gthread", "--threads", "4")
WAITRESS = ("-m", "waitress", "--listen", "127.0.0.1:0")
SERVE_WSGI = ("-m", "tests.frameworks.serve_wsgi")


@dataclass(frozen=True)
class Row:
    """One application under one server.

    Attributes:
        name: of the row.
        module: in `tests/frameworks/apps`.
        server: arguments of Python that serve the application named behind them, on a port that
            the kernel chooses, and say so.
        listening: what the server then says; the group is the port.
        templates: whether the framework knows route templates, so that they name the endpoints.
    """

    name: str
    module: str
    server: tuple[str, ...] = UVICORN
    listening: str = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"
    templates: bool = True

    @property
    def command(self) -> list[str]:
        return [sys.executable, *self.server, f"tests.frameworks.apps.{self.module}:app"]


ON_HYPERCORN = r"Running on http://127\.0\.0\.1:(\d+)"

ON_GUNICORN = r"Listening at: http://127\.0\.0\.1:(\d+)"
ON_WSGI = r"Serving on http://127\.0\.0\.1:(\d+)"

ROWS = [
    Row("fastapi", "fastapi_async"),
    Row("fastapi-def", "fastapi_def"),
    Row("starlette", "starlette_app"),
    Row("litestar", "litestar_app"),
    Row("quart", "quart_app", HYPERCORN, ON_HYPERCORN),
    Row("django", "django_app"),
    Row("falcon", "falcon_app"),
    Row("plain", "plain_app", templates=False),
    Row("plain-hypercorn", "plain_app", HYPERCORN, ON_HYPERCORN, templates=False),
    Row("flask", "flask_app", GUNICORN, ON_GUNICORN),
    Row("flask-gevent", "flask_app", (*GUNICORN, "--worker-class", "gevent"), ON_GUNICORN),
    Row("flask-werkzeug", "flask_app", (*SERVE_WSGI, "werkzeug"), ON_WSGI),
    # Several workers, forked from a process that has made the application already.
    Row("django-wsgi", "django_wsgi", (*GTHREAD, "--preload"), ON_GUNICORN),
    Row("falcon-wsgi", "falcon_wsgi", WAITRESS, ON_WSGI),
    Row("plain-wsgi", "plain_wsgi", (*SERVE_WSGI, "wsgiref"), ON_WSGI, templates=False),
]
