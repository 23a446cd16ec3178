"""An order that is charged at once and shipped later, with Django under ASGI.

    stephttp dev -- uvicorn examples.django_asgi:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

import json
from datetime import timedelta

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")


@provider.endpoint()
async def place_order(request: HttpRequest, order_id: int) -> JsonResponse:
    item: str = json.loads(request.body)["item"]
    receipt = await step.run("charge", charge, item)
    await step.sleep("pack", timedelta(seconds=1))
    parcel = await step.run("ship", ship, item)
    return JsonResponse(
        {"receipt": receipt, "parcel": parcel},
        status=201,
        headers={"Location": f"/orders/{order_id}"},
    )


async def charge(item: str) -> str:
    return f"paid for {item}"


async def ship(item: str) -> str:
    return f"{item} is on its way"


urlpatterns = [path("orders/<int:order_id>", place_order)]

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="not a secret")
django.setup()
app = provider.asgi(get_asgi_application())
