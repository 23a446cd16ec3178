"""The same shop in Django, with `ATOMIC_REQUESTS`; one database for all tests of a process.

The settings of Django are those of a process, and other tests have other ones. So what needs them
is imported and made inside `project`.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import IntegrityError, connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views import View

from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.databases import own_database
from tests.django_settings import configured
from tests.integrations.shops import NAP, Mark


@contextmanager
def project(*, atomic_requests: bool = True, postgres: Path | None = None) -> Iterator[None]:
    """Let Django have the settings of the shop, and then those that it had before.

    Args:
        postgres: the folder of the server (`tests.databases`) that has the shop; `None`: a file.
    """
    place = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(_folder() / "shop.sqlite3")}
    if postgres is not None:
        place = {"ENGINE": "django.db.backends.postgresql", "USER": "postgres"}
        place |= {"HOST": str(postgres), "NAME": own_database(postgres, "django_shop")}
    with configured(
        SECRET_KEY="not a secret",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DEBUG_PROPAGATE_EXCEPTIONS=True,
        DATABASES={"default": {**place, "ATOMIC_REQUESTS": atomic_requests}},
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_PERMISSION_CLASSES": [],
            "UNAUTHENTICATED_USER": None,
        },
    ):
        if not apps.ready:
            django.setup()
        yield


@cache
def _folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="stephttp-shop-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


urlpatterns: list[Any] = []


@cache
def order_model() -> Any:
    class Order(models.Model):
        item: "models.TextField[str, str]" = models.TextField()

        class Meta:
            app_label = "shop"
            db_table = "orders"

    return Order


class DjangoShop:
    """Its orders; a new table for each test."""

    def __init__(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS orders")
        with connection.schema_editor() as editor:
            editor.create_model(order_model())
        connection.close()

    def rows(self) -> list[tuple[int, str]]:
        found = list(order_model().objects.order_by("id").values_list("id", "item"))
        connection.close()
        return found


def write(item: str) -> int:
    return int(order_model().objects.create(item=item).pk)


async def async_write(item: str) -> int:
    return int((await order_model().objects.acreate(item=item)).pk)


def orders() -> list[int]:
    first = blocking.run("first", write, "book")
    blocking.sleep("nap", NAP)
    return [first, blocking.run("second", write, "pen")]


async def async_orders() -> list[int]:
    first = await step.run("first", async_write, "book")
    await step.sleep("nap", NAP)
    return [first, await step.run("second", async_write, "pen")]


def answer(ids: list[int]) -> HttpResponse:
    return JsonResponse(ids, safe=False)


def served(view: Any, wsgi: bool, provider: Provider) -> Any:
    """Return the application that serves a view at `/`."""
    settings.ROOT_URLCONF = (path("", view),)
    if wsgi:
        return provider.wsgi(get_wsgi_application())
    return provider.asgi(get_asgi_application())


def with_an_error(mark: Mark, in_savepoint: bool) -> Any:
    """A view in which a statement fails after the first step."""

    @mark
    def view(request: HttpRequest) -> HttpResponse:
        first = blocking.run("first", write, "book")
        around = transaction.atomic() if in_savepoint else nullcontext()
        # Django notes an error of its ORM by itself, and rolls back.
        with suppress(IntegrityError), around, connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders (id, item) VALUES (%s, 'the same id')", [first])
        blocking.sleep("nap", NAP)
        return answer([first, blocking.run("second", write, "pen")])

    return view


# --- views: the code around them commits ----------------------------------------------------------


def view_def(mark: Mark) -> Any:
    @mark
    def view(request: HttpRequest) -> HttpResponse:
        return answer(orders())

    return view


def view_class(mark: Mark) -> Any:
    class Orders(View):
        @mark
        def get(self, request: HttpRequest) -> HttpResponse:
            return answer(orders())

    return Orders.as_view()


def view_of_class(mark: Mark) -> Any:
    class Orders(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return answer(orders())

    return mark(Orders.as_view())


def rest_function(mark: Mark) -> Any:
    from rest_framework.decorators import api_view
    from rest_framework.response import Response

    @api_view(["GET"])  # type: ignore[untyped-decorator]
    @mark
    def view(request: Any) -> Any:
        return Response(orders())

    return view


def rest_class(mark: Mark) -> Any:
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Orders(APIView):  # type: ignore[misc]
        @mark
        def get(self, request: Any) -> Any:
            return Response(orders())

    return Orders.as_view()


def ninja_def(mark: Mark) -> Any:
    from ninja import NinjaAPI

    api = NinjaAPI(urls_namespace=f"def {id(mark)}")

    @api.get("")
    @mark
    def view(request: HttpRequest) -> list[int]:
        return orders()

    return api.urls


AROUND: list[Callable[[Mark], Any]] = [
    view_def,
    view_class,
    view_of_class,
    rest_function,
    rest_class,
    ninja_def,
]


# --- views whose own transaction spans the wait ---------------------------------------------------


def body(mark: Mark) -> Any:
    @transaction.non_atomic_requests
    @mark
    def view(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            return answer(orders())

    return view


def savepoint(mark: Mark) -> Any:
    """`ATOMIC_REQUESTS` commits what is left after a part of it was rolled back."""

    @mark
    def view(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            return answer(orders())

    return view


def marked_for_rollback(mark: Mark) -> Any:
    @mark
    def view(request: HttpRequest) -> HttpResponse:
        with transaction.atomic(savepoint=False):
            return answer(orders())

    return view


BODY: list[Callable[[Mark], Any]] = [body, savepoint, marked_for_rollback]


# --- views whose steps commit by themselves -------------------------------------------------------


def autocommit(mark: Mark) -> Any:
    @transaction.non_atomic_requests
    @mark
    def view(request: HttpRequest) -> HttpResponse:
        return answer(orders())

    return view


def view_async(mark: Mark) -> Any:
    @transaction.non_atomic_requests
    @mark
    async def view(request: HttpRequest) -> HttpResponse:
        return answer(await async_orders())

    return view


def class_async(mark: Mark) -> Any:
    class Orders(View):
        async def get(self, request: HttpRequest) -> HttpResponse:
            return answer(await async_orders())

    return transaction.non_atomic_requests(mark(Orders.as_view()))


def ninja_async(mark: Mark) -> Any:
    from ninja import NinjaAPI

    api = NinjaAPI(urls_namespace=f"async {id(mark)}")

    @api.get("")
    @mark
    async def view(request: HttpRequest) -> list[int]:
        return await async_orders()

    urls = api.urls
    for pattern in urls[0]:
        pattern.callback = transaction.non_atomic_requests(pattern.callback)
    return urls


ALONE: list[Callable[[Mark], Any]] = [autocommit, view_async, class_async, ninja_async]
