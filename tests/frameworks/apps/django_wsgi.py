"""Django under WSGI, with its own middleware; one of its views is `async def`."""

import json

import django
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path, re_path
from django.views.decorators.http import require_GET, require_POST

import stephttp
from stephttp import step as async_step
from stephttp.sync import step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider


@require_GET
def hello(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"greeting": step.run("greet", greet, name)})


@require_POST
def place(request: HttpRequest, order_id: int) -> HttpResponse:
    order = json.loads(request.body)
    step.sleep("nap", NAP)
    response = JsonResponse({"order": order_id, "item": order["item"]}, status=201)
    response["location"] = f"/orders/{order_id}"
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return response


@require_POST
def form(request: HttpRequest) -> HttpResponse:
    step.sleep("nap", NAP)
    return JsonResponse({"name": request.POST["name"], "city": request.POST["city"]})


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    file, note = request.FILES["file"], request.POST["note"]
    step.sleep("nap", NAP)
    assert isinstance(file, UploadedFile)
    return JsonResponse({"note": note, "filename": file.name, "sha256": digest(file.read())})


@require_POST
def reverse(request: HttpRequest) -> HttpResponse:
    step.sleep("nap", NAP)
    return HttpResponse(request.body[::-1], content_type="application/octet-stream")


async def me(request: HttpRequest) -> HttpResponse:
    await async_step.sleep("nap", NAP)
    return JsonResponse(
        {
            "authorization": request.headers["authorization"],
            "session": request.COOKIES["session"],
        }
    )


def bug(request: HttpRequest, when: str) -> HttpResponse:
    step.run("greet", greet, when)
    if when == "later":
        step.sleep("nap", NAP)
    raise RuntimeError("bug")


@require_POST
def retried(request: HttpRequest, key: str) -> HttpResponse:
    stephttp.configure(retries=2)
    return JsonResponse({"attempts": step.run("flaky", flaky, key)})


urlpatterns = [
    path("hello/<name>", hello),
    path("orders/<int:order_id>", place),
    path("forms", form),
    path("uploads", upload),
    path("bytes", reverse),
    path("me", me),
    path("bug/<when>", bug),
    re_path(r"^flaky/(?P<key>[0-9a-f-]+)$", retried),
]

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="only for tests",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)
django.setup()
app = provider.wsgi(get_wsgi_application())
