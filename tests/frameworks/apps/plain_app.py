"""No framework: an ASGI application as the specification has it."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from email import message_from_bytes
from email.policy import HTTP
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

import stephttp
from stephttp import step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]

JSON: Headers = [(b"content-type", b"application/json")]


async def whole_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def ok(value: Any) -> Answer:
    return 200, JSON, json.dumps(value).encode()


async def hello(scope: Scope, receive: Receive, name: str) -> Answer:
    return ok({"greeting": await step.run("greet", greet, name)})


async def orders(scope: Scope, receive: Receive, order_id: str) -> Answer:
    await step.sleep("nap", NAP)
    order = json.loads(await whole_body(receive))
    told = json.dumps({"order": int(order_id), "item": order["item"]}).encode()
    headers = [
        (b"location", f"/orders/{order_id}".encode()),
        (b"set-cookie", b"cart=empty"),
        (b"set-cookie", f"last={order_id}".encode()),
    ]
    return 201, [*JSON, *headers], told


async def forms(scope: Scope, receive: Receive) -> Answer:
    fields = dict(parse_qsl((await whole_body(receive)).decode()))
    await step.sleep("nap", NAP)
    return ok({"name": fields["name"], "city": fields["city"]})


async def uploads(scope: Scope, receive: Receive) -> Answer:
    await step.sleep("nap", NAP)
    head = b"content-type: " + dict(scope["headers"])[b"content-type"] + b"\r\n\r\n"
    note, file = message_from_bytes(head + await whole_body(receive), policy=HTTP).iter_parts()
    told = {"note": note.get_content(), "filename": file.get_filename()}
    return ok({**told, "sha256": digest(file.get_content())})


async def reverse(scope: Scope, receive: Receive) -> Answer:
    await step.sleep("nap", NAP)
    data = await whole_body(receive)
    return 200, [(b"content-type", b"application/octet-stream")], data[::-1]


async def me(scope: Scope, receive: Receive) -> Answer:
    await step.sleep("nap", NAP)
    headers = {name: value.decode() for name, value in scope["headers"]}
    session = SimpleCookie(headers[b"cookie"])["session"].value
    return ok({"authorization": headers[b"authorization"], "session": session})


async def bug(scope: Scope, receive: Receive, when: str) -> Answer:
    await step.run("greet", greet, when)
    if when == "later":
        await step.sleep("nap", NAP)
    raise RuntimeError("bug")


async def retried(scope: Scope, receive: Receive, key: str) -> Answer:
    stephttp.configure(retries=2)
    return ok({"attempts": await step.run("flaky", flaky, key)})


ROUTES: dict[str, Callable[..., Awaitable[Answer]]] = {
    "hello": hello,
    "orders": orders,
    "forms": forms,
    "uploads": uploads,
    "bytes": reverse,
    "me": me,
    "bug": bug,
    "flaky": retried,
}


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    _, first, *arguments = scope["path"].split("/")
    status, headers, body = await ROUTES[first](scope, receive, *arguments)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = provider.asgi(plain)
