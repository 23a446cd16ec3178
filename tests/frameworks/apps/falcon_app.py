"""Falcon under ASGI."""

from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response

import stephttp
from stephttp import step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider


class Hello:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.media = {"greeting": await step.run("greet", greet, name)}


class Orders:
    async def on_post(self, req: Request, resp: Response, order_id: int) -> None:
        await step.sleep("nap", NAP)
        order = await req.get_media()
        resp.status = falcon.HTTP_201
        resp.location = f"/orders/{order_id}"
        resp.set_cookie("cart", "empty")
        resp.set_cookie("last", str(order_id))
        resp.media = {"order": order_id, "item": order["item"]}


class Forms:
    async def on_post(self, req: Request, resp: Response) -> None:
        fields = await req.get_media()
        await step.sleep("nap", NAP)
        resp.media = {"name": fields["name"], "city": fields["city"]}


class Uploads:
    async def on_post(self, req: Request, resp: Response) -> None:
        await step.sleep("nap", NAP)
        told: dict[str, Any] = {}
        async for part in await req.get_media():
            if part.name == "file":
                data = await part.stream.read()
                told |= {"filename": part.filename, "sha256": digest(data)}
            else:
                told[part.name] = await part.text
        resp.media = told


class Bytes:
    async def on_post(self, req: Request, resp: Response) -> None:
        await step.sleep("nap", NAP)
        resp.data = (await req.stream.read())[::-1]
        resp.content_type = "application/octet-stream"


class Me:
    async def on_get(self, req: Request, resp: Response) -> None:
        await step.sleep("nap", NAP)
        resp.media = {"authorization": req.auth, "session": req.cookies["session"]}


class Bug:
    async def on_get(self, req: Request, resp: Response, when: str) -> None:
        await step.run("greet", greet, when)
        if when == "later":
            await step.sleep("nap", NAP)
        raise RuntimeError("bug")


class Flaky:
    async def on_post(self, req: Request, resp: Response, key: str) -> None:
        stephttp.configure(retries=2)
        resp.media = {"attempts": await step.run("flaky", flaky, key)}


falcon_app = falcon.asgi.App()
falcon_app.add_route("/hello/{name}", Hello())
falcon_app.add_route("/orders/{order_id:int}", Orders())
falcon_app.add_route("/forms", Forms())
falcon_app.add_route("/uploads", Uploads())
falcon_app.add_route("/bytes", Bytes())
falcon_app.add_route("/me", Me())
falcon_app.add_route("/bug/{when}", Bug())
falcon_app.add_route("/flaky/{key}", Flaky())
app = provider.asgi(falcon_app)
