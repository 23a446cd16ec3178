"""A Django project with a database of each kind, and a view in each style."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.http import HttpRequest, JsonResponse
from django.urls import clear_url_caches, path
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from stephttp import step
from stephttp.integrations import django as steps
from stephttp.integrations._step_rows import run_async, run_blocking
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.databases import own_database, sockets
from tests.django_settings import configured
from tests.durable import Durable, durable

APP = "stephttp.integrations.django"


@contextmanager
def project(folder: Path, postgres: Path, mariadb: Path) -> Generator[dict[str, str]]:
    """Configure Django in this process, whatever it was before; the addresses of the databases.

    They have the table of the migration, and one of the application.
    """
    importlib.import_module("pymysql").install_as_MySQLdb()
    own = {server: own_database(server, "django_kinds") for server in (postgres, mariadb)}
    databases: dict[str, Any] = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "app.sqlite3")},
        "postgres": {
            "ENGINE": "django.db.backends.postgresql", "NAME": own[postgres], "USER": "postgres",
            "HOST": str(postgres),
        },
        "mariadb": {
            "ENGINE": "django.db.backends.mysql", "NAME": own[mariadb], "USER": "root",
            "HOST": str(mariadb),
        },
    }  # fmt: skip
    urls = {
        "default": f"sqlite:///{folder / 'app.sqlite3'}",
        "postgres": sockets(postgres, "psycopg", own[postgres]),
        "mariadb": f"mysql+pymysql://root@/{own[mariadb]}?unix_socket={mariadb}",
    }
    with configured(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="none",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=[APP],
        DATABASES=databases,
        DEBUG_PROPAGATE_EXCEPTIONS=True,
    ):
        installed = apps.ready
        if installed:
            apps.set_installed_apps([APP])
        else:
            django.setup()
        opened: list[BaseDatabaseWrapper] = []

        def note(connection: BaseDatabaseWrapper, **_: Any) -> None:
            opened.append(connection)

        connection_created.connect(note)
        try:
            _drop_tables(databases)
            for alias in databases:
                with connections[alias].cursor() as cursor:
                    cursor.execute("CREATE TABLE orders (item VARCHAR(64))")
                call_command("migrate", database=alias, verbosity=0)
                connections[alias].close()
            yield urls
        finally:
            _drop_tables(databases)
            connection_created.disconnect(note)
            for one in opened:  # those of threads that ended in the middle of a request
                one.inc_thread_sharing()
                one.close()
            if installed:
                apps.unset_installed_apps()


def _drop_tables(databases: dict[str, Any]) -> None:
    """An earlier project of this process had them, too."""
    for alias in databases:
        with connections[alias].cursor() as cursor:
            for table in ("orders", "stephttp_steps", "django_migrations"):
                cursor.execute(f"DROP TABLE IF EXISTS {table}")


class Kind:
    """A database of the project, and a style of view (`tests.styles`)."""

    def __init__(self, alias: str, style: str, url: str) -> None:
        self.alias = alias
        self.style = style
        self.engine = create_engine(url, poolclass=NullPool)
        self.ran: list[str] = []
        """What each run of `add` was given."""
        with self.engine.begin() as connection:
            for table in ("orders", "stephttp_steps"):
                connection.execute(text(f"DELETE FROM {table}"))

    def add(self, item: str) -> str:
        """Insert a row, by Django."""
        self.ran.append(item)
        with connections[self.alias].cursor() as cursor:
            cursor.execute("INSERT INTO orders (item) VALUES (%s)", [item])
        return item

    @property
    def step(self) -> Any:
        return step if self.style == "async" else sync_step

    def transaction(self, step_id: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        wanted = steps.atransaction if self.style == "async" else steps.transaction
        return wanted(step_id, fn, *args, using=self.alias, **kwargs)

    def serving(
        self, handler: Callable[[], Generator[Any, Any, Any]]
    ) -> AbstractAsyncContextManager[Durable]:
        """Serve a view that is a generator, and yields what has to be awaited on a loop."""

        async def on_loop(request: HttpRequest) -> JsonResponse:
            return JsonResponse(await run_async(handler()), safe=False)

        def in_thread(request: HttpRequest) -> JsonResponse:
            return JsonResponse(run_blocking(handler()), safe=False)

        clear_url_caches()
        urls: Any = sys.modules[__name__]
        urls.urlpatterns = [path("", on_loop if self.style == "async" else in_thread)]
        wsgi = self.style == "wsgi"

        def build(provider: Provider) -> Any:
            if wsgi:
                return provider.wsgi(get_wsgi_application())
            return provider.asgi(get_asgi_application())

        return durable(build, wsgi=wsgi)

    async def outside(self, step_id: str, fn: Callable[..., Any], *args: Any) -> Any:
        """A transaction outside a request."""

        def in_thread() -> Any:
            try:
                return self.transaction(step_id, fn, *args)
            finally:
                connections[self.alias].close()

        if self.style == "async":
            made = await self.transaction(step_id, fn, *args)
            await sync_to_async(connections.close_all)()
            return made
        return await asyncio.to_thread(in_thread)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    @property
    def orders(self) -> list[str]:
        return [item for (item,) in self.rows("SELECT item FROM orders ORDER BY item")]

    @property
    def kept(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT step_id, result FROM stephttp_steps ORDER BY step_id, step_hash")


urlpatterns: list[Any] = []
