"""An order that is charged at once and shipped later, with Django under WSGI.

    stephttp dev -- gunicorn --threads 4 examples.django_wsgi:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

import json
from datetime import timedelta

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

import stephttp
from stephttp.sync import step

provider = stephttp.setup("https://api.example.com")


@provider.endpoint()
def place_order(request: HttpRequest, order_id: int) -> JsonResponse:
    item: str = json.loads(request.body)["item"]
    receipt = step.run("charge", charge, item)
    step.sleep("pack", timedelta(seconds=1))
    parcel = step.run("ship", ship, item)
    return JsonResponse(
        {"receipt": receipt, "parcel": parcel},
        status=201,
        headers={"Location": f"/orders/{order_id}"},
    )


def charge(item: str) -> str:
    return f"paid for {item}"


def ship(item: str) -> str:
    return f"{item} is on its way"


urlpatterns = [path("orders/<int:order_id>", place_order)]

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="not a secret")
django.setup()
app = provider.wsgi(get_wsgi_application())
