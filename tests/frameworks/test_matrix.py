"""Every framework, every scenario: a real server in front of it, a real engine behind it."""

from __future__ import annotations

import hashlib
import random
from uuid import uuid4

import pytest

from tests.frameworks.conftest import Application

MEGABYTE = random.Random(1).randbytes(1024 * 1024)


@pytest.mark.parametrize("name", ["Ada", "И", "é"])
def test_steps_that_need_not_wait(app: Application, name: str) -> None:
    answer = app.call("GET", f"/hello/{name}")
    assert (answer.status_code, answer.json()) == (200, {"greeting": f"Hello {name}"})
    assert app.run(answer)["status"] == "Completed"
    assert app.steps(answer)["greet"]["status"] == "Completed"


def test_json_status_location_and_cookies_after_a_sleep(app: Application) -> None:
    first = app.call("POST", "/orders/7", json={"item": "Büroklammern"})
    final = app.finally_answers(first)
    assert (final.status_code, final.json()) == (201, {"order": 7, "item": "Büroklammern"})
    assert final.headers["location"] == str(first.request.url.join("/orders/7"))
    cookies = [cookie.split(";")[0] for cookie in final.headers.get_list("set-cookie")]
    assert cookies == ["cart=empty", "last=7"]
    assert app.run(first)["status"] == "Completed"


def test_a_form_after_a_sleep(app: Application) -> None:
    fields = {"name": "Ada & Grace", "city": "Zürich"}
    final = app.finally_answers(app.call("POST", "/forms", data=fields))
    assert (final.status_code, final.json()) == (200, fields)


def test_a_multipart_form_with_a_file_after_a_sleep(app: Application) -> None:
    file = MEGABYTE[:100_000]
    first = app.call(
        "POST", "/uploads", data={"note": "a note"}, files={"file": ("photo.jpg", file)}
    )
    final = app.finally_answers(first)
    assert final.json() == {
        "note": "a note",
        "filename": "photo.jpg",
        "sha256": hashlib.sha256(file).hexdigest(),
    }


def test_a_megabyte_of_any_bytes_in_and_out(app: Application) -> None:
    final = app.finally_answers(app.call("POST", "/bytes", content=MEGABYTE))
    assert final.status_code == 200
    assert final.headers["content-type"] == "application/octet-stream"
    assert final.content == MEGABYTE[::-1]


def test_authorization_and_cookies_after_a_sleep(app: Application) -> None:
    headers = {"authorization": "Bearer secret", "cookie": "session=abc; other=1"}
    final = app.finally_answers(app.call("GET", "/me", headers=headers))
    assert final.json() == {"authorization": "Bearer secret", "session": "abc"}


@pytest.mark.parametrize("when", ["now", "later"])
def test_an_exception_is_a_500(app: Application, when: str) -> None:
    first = app.call("GET", f"/bug/{when}")
    final = first if when == "now" else app.finally_answers(first)
    assert final.status_code == 500
    if "x-run-id" not in first.headers:
        return  # what the application does not answer itself, its server does, outside of us
    assert app.run(first)["status"] == "Failed"
    assert app.steps(first)["greet"]["status"] == "Completed"


def test_a_failing_step_is_retried_until_it_works(app: Application) -> None:
    first = app.call("POST", f"/flaky/{uuid4()}")
    final = app.finally_answers(first)
    assert (final.status_code, final.json()) == (200, {"attempts": 3})
    assert app.run(first)["status"] == "Completed"
    assert app.steps(first)["flaky"]["attempts"] == 3


def test_endpoints_are_named_by_method_and_route_template(app: Application) -> None:
    key = uuid4()
    requests = [
        ("GET", "/hello/Ada", "GET /hello/{name}"),
        ("GET", "/hello/%D0%98", "GET /hello/{name}"),
        ("POST", "/orders/7", "POST /orders/{order_id}"),
        ("GET", "/bug/later", "GET /bug/{when}"),
        ("POST", f"/flaky/{key}", "POST /flaky/{key}"),
    ]
    for method, path, template in requests:
        first = app.call(method, path, json={"item": "x"} if method == "POST" else None)
        if first.status_code == 303:
            app.finally_answers(first)
        expected = template if app.row.templates else f"{method} {path}"
        assert app.run(first)["function"] == expected
