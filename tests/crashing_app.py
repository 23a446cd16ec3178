"""An application whose process is killed again and again: `python -m tests.crashing_app KIND URL`.

The first process holds the socket and forks the one that serves, so that the next one is there at
once. Every second one kills itself exactly between a commit and its acknowledgement, after so many
commits; the others are killed at any moment. Nothing of the killed process runs after that.

`KIND` is `sqlalchemy` (an `async def` handler), `blocking` (a `def` handler) or `django`; `URL` is
of the database as SQLAlchemy has it, for `django` the folder of PostgreSQL's socket.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import sys
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2  # noqa: F401  (not imported in each of the processes)
import uvicorn

import stephttp
import stephttp._client.connection_pool
from stephttp import step
from stephttp.sync import step as sync_step

RETRIES = 20
NAMES = ("one", "two", "three")
INSERT = "INSERT INTO writes (step, token) VALUES ('{}', '{}')"
NOW = timedelta(0)


class Fate:
    """How the present process ends."""

    commits_left = 0
    """After so many commits it kills itself; 0: never."""
    lifeline = -1
    """A pipe to the first process."""


def committed(*_: Any) -> None:
    """Note that a transaction was committed, which the engine does not know yet."""
    Fate.commits_left -= 1
    if Fate.commits_left == 0:
        os.write(Fate.lifeline, b"x")
        os.kill(os.getpid(), signal.SIGKILL)


def new_row() -> tuple[str, str]:
    """Return a statement for a row that names its run and step, and is another one each time."""
    token = uuid4().hex
    return INSERT.format(stephttp.idempotency_key(), token), token


def sqlalchemy_app(url: str) -> Any:
    from fastapi import FastAPI
    from sqlalchemy import event, text
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
    from sqlalchemy.orm import Session

    from stephttp.integrations.sqlalchemy import transaction

    sessions = async_sessionmaker(create_async_engine(url))
    event.listen(Session, "after_commit", committed)
    app = FastAPI()

    async def write(session: AsyncSession) -> str:
        statement, token = new_row()
        await session.execute(text(statement))
        return token

    @app.post("/sqlalchemy")
    async def handler() -> list[str]:
        stephttp.configure(retries=RETRIES)
        await step.sleep("start", NOW)  # from here on the engine calls
        return [await transaction(name, sessions, write) for name in NAMES]

    return app


def blocking_app(url: str) -> Any:
    from fastapi import FastAPI
    from sqlalchemy import create_engine, event, text
    from sqlalchemy.orm import Session, sessionmaker

    from stephttp.integrations.sqlalchemy import transaction

    sessions = sessionmaker(create_engine(url))
    event.listen(Session, "after_commit", committed)
    app = FastAPI()

    def write(session: Session) -> str:
        statement, token = new_row()
        session.execute(text(statement))
        return token

    @app.post("/blocking")
    def handler() -> list[str]:
        stephttp.configure(retries=RETRIES)
        sync_step.sleep("start", NOW)
        return [transaction(name, sessions, write) for name in NAMES]

    return app


def django_app(folder: str) -> Any:
    import django
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="none",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["stephttp.integrations.django"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "postgres",
                "HOST": folder,
            }
        },
    )
    django.setup()
    from django.core.asgi import get_asgi_application
    from django.db import connection, transaction
    from django.http import HttpRequest, JsonResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    from stephttp.integrations.django import atransaction

    def write() -> str:
        statement, token = new_row()
        with connection.cursor() as cursor:
            cursor.execute(statement)
        transaction.on_commit(committed)
        return token

    @csrf_exempt
    async def view(request: HttpRequest) -> JsonResponse:
        stephttp.configure(retries=RETRIES)
        await step.sleep("start", NOW)
        return JsonResponse([await atransaction(name, write) for name in NAMES], safe=False)

    urlpatterns.append(path("django", view))
    return get_asgi_application()


urlpatterns: list[Any] = []
APPS = {"sqlalchemy": sqlalchemy_app, "blocking": blocking_app, "django": django_app}


def serve(kind: str, url: str) -> None:
    """Serve, and restart what was killed, until this process is asked to end."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    app = stephttp.setup("http://127.0.0.1").asgi(APPS[kind](url))
    config = uvicorn.Config(app, log_level="critical", lifespan="off")
    config.load()  # not in each of the processes
    print(f"listening on {listening.getsockname()[1]}", flush=True)
    received, Fate.lifeline = os.pipe()
    exact = at_random = 0
    child = 0

    def end(*_: Any) -> None:
        os.kill(child, signal.SIGKILL)
        print(f"killed {exact} exactly, {at_random} at random", flush=True)
        os._exit(0)

    # Asked to end between two children, it ends when the next one is there.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, end)
    for number in range(sys.maxsize):
        is_exact = number % 2 == 0
        Fate.commits_left = random.randint(2, 12) if is_exact else 0
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            uvicorn.Server(config).run(sockets=[listening])
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if is_exact:
            select.select([received], [], [])
            os.read(received, 1)
            exact += 1
        else:
            select.select([], [], [], 0.1 + random.expovariate(3))
            os.kill(child, signal.SIGKILL)
            at_random += 1
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.waitpid(child, 0)


if __name__ == "__main__":
    serve(*sys.argv[1:])
