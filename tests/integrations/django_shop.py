"""The same shop in Django, with `ATOMIC_REQUESTS`; one database for all tests of a process."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings

_folder = Path(tempfile.mkdtemp(prefix="stephttp-shop-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="tests.integrations.django_shop",
    DEBUG_PROPAGATE_EXCEPTIONS=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(_folder / "shop.sqlite3"),
            "ATOMIC_REQUESTS": True,
        }
    },
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
    },
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views import View  # noqa: E402
from ninja import NinjaAPI  # noqa: E402
from rest_framework.decorators import api_view  # noqa: E402
from rest_framework.response import Response as RestResponse  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from stephttp import Provider, step  # noqa: E402
from stephttp.sync import step as blocking  # noqa: E402
from tests.integrations.shops import NAP, Mark  # noqa: E402

urlpatterns: list[Any] = []


class Order(models.Model):
    item: "models.TextField[str, str]" = models.TextField()

    class Meta:
        app_label = "shop"
        db_table = "orders"


class DjangoShop:
    """Its orders; a new table for each test."""

    def __init__(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS orders")
        with connection.schema_editor() as editor:
            editor.create_model(Order)
        connection.close()

    def rows(self) -> list[tuple[int, str]]:
        found = list(Order.objects.order_by("id").values_list("id", "item"))
        connection.close()
        return found


def write(item: str) -> int:
    return int(Order.objects.create(item=item).pk)


async def async_write(item: str) -> int:
    return int((await Order.objects.acreate(item=item)).pk)


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
    @api_view(["GET"])  # type: ignore[untyped-decorator]
    @mark
    def view(request: Any) -> RestResponse:
        return RestResponse(orders())

    return view


def rest_class(mark: Mark) -> Any:
    class Orders(APIView):  # type: ignore[misc]
        @mark
        def get(self, request: Any) -> RestResponse:
            return RestResponse(orders())

    return Orders.as_view()


def ninja_def(mark: Mark) -> Any:
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
