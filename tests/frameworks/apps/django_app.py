"""Django under ASGI; one of its views is a `def` function, and one route a regular expression."""

import json

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path, re_path
from django.views.decorators.http import require_GET, require_POST

import stephttp
from stephttp import step
from stephttp.sync import step as blocking_step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider


@require_GET
def hello(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"greeting": blocking_step.run("greet", greet, name)})


@require_POST
async def place(request: HttpRequest, order_id: int) -> HttpResponse:
    order = json.loads(request.body)
    await step.sleep("nap", NAP)
    response = JsonResponse({"order": order_id, "item": order["item"]}, status=201)
    response["location"] = f"/orders/{order_id}"
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return response


@require_POST
async def form(request: HttpRequest) -> HttpResponse:
    await step.sleep("nap", NAP)
    return JsonResponse({"name": request.POST["name"], "city": request.POST["city"]})


@require_POST
async def upload(request: HttpRequest) -> HttpResponse:
    await step.sleep("nap", NAP)
    file = request.FILES["file"]
    assert isinstance(file, UploadedFile)
    sha256 = digest(file.read())
    return JsonResponse({"note": request.POST["note"], "filename": file.name, "sha256": sha256})


@require_POST
async def reverse(request: HttpRequest) -> HttpResponse:
    await step.sleep("nap", NAP)
    return HttpResponse(request.body[::-1], content_type="application/octet-stream")


async def me(request: HttpRequest) -> HttpResponse:
    await step.sleep("nap", NAP)
    return JsonResponse(
        {
            "authorization": request.headers["authorization"],
            "session": request.COOKIES["session"],
        }
    )


async def bug(request: HttpRequest, when: str) -> HttpResponse:
    await step.run("greet", greet, when)
    if when == "later":
        await step.sleep("nap", NAP)
    raise RuntimeError("bug")


@require_POST
async def retried(request: HttpRequest, key: str) -> HttpResponse:
    stephttp.configure(retries=2)
    return JsonResponse({"attempts": await step.run("flaky", flaky, key)})


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

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="only for tests")
django.setup()
app = provider.asgi(get_asgi_application())
