"""No framework: a WSGI application as PEP 3333 has it, and held to it by a validator."""

import json
from collections.abc import Callable, Iterable
from email import message_from_bytes
from email.policy import HTTP
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.validate import validator

import stephttp
from stephttp.sync import step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
Answer = tuple[str, Headers, bytes]

JSON: Headers = [("content-type", "application/json")]


def whole_body(environ: Environ) -> bytes:
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return body


def ok(value: Any) -> Answer:
    return "200 OK", JSON, json.dumps(value).encode()


def hello(environ: Environ, name: str) -> Answer:
    return ok({"greeting": step.run("greet", greet, name)})


def orders(environ: Environ, order_id: str) -> Answer:
    order = json.loads(whole_body(environ))
    step.sleep("nap", NAP)
    told = json.dumps({"order": int(order_id), "item": order["item"]}).encode()
    headers = [
        ("location", f"/orders/{order_id}"),
        ("set-cookie", "cart=empty"),
        ("set-cookie", f"last={order_id}"),
    ]
    return "201 Created", [*JSON, *headers], told


def forms(environ: Environ) -> Answer:
    fields = dict(parse_qsl(whole_body(environ).decode()))
    step.sleep("nap", NAP)
    return ok({"name": fields["name"], "city": fields["city"]})


def uploads(environ: Environ) -> Answer:
    step.sleep("nap", NAP)
    head = f"content-type: {environ['CONTENT_TYPE']}\r\n\r\n".encode()
    note, file = message_from_bytes(head + whole_body(environ), policy=HTTP).iter_parts()
    told = {"note": note.get_content(), "filename": file.get_filename()}
    return ok({**told, "sha256": digest(file.get_content())})


def reverse(environ: Environ) -> Answer:
    step.sleep("nap", NAP)
    return "200 OK", [("content-type", "application/octet-stream")], whole_body(environ)[::-1]


def me(environ: Environ) -> Answer:
    step.sleep("nap", NAP)
    session = SimpleCookie(environ["HTTP_COOKIE"])["session"].value
    return ok({"authorization": environ["HTTP_AUTHORIZATION"], "session": session})


def bug(environ: Environ, when: str) -> Answer:
    step.run("greet", greet, when)
    if when == "later":
        step.sleep("nap", NAP)
    raise RuntimeError("bug")


def retried(environ: Environ, key: str) -> Answer:
    stephttp.configure(retries=2)
    return ok({"attempts": step.run("flaky", flaky, key)})


ROUTES: dict[str, Callable[..., Answer]] = {
    "hello": hello,
    "orders": orders,
    "forms": forms,
    "uploads": uploads,
    "bytes": reverse,
    "me": me,
    "bug": bug,
    "flaky": retried,
}


def plain(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A generator: not a line of it runs before the server asks for the body."""
    _, first, *arguments = environ["PATH_INFO"].encode("latin-1").decode().split("/")
    status, headers, body = ROUTES[first](environ, *arguments)
    start_response(status, headers)
    yield body


app = validator(provider.wsgi(validator(plain)))
