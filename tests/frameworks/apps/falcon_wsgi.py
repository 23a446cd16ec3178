"""Falcon under WSGI."""

from typing import Any

import falcon
from falcon import Request, Response

import stephttp
from stephttp.sync import step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider


class Hello:
    def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.media = {"greeting": step.run("greet", greet, name)}


class Orders:
    def on_post(self, req: Request, resp: Response, order_id: int) -> None:
        order = req.get_media()
        step.sleep("nap", NAP)
        resp.status = falcon.HTTP_201
        resp.location = f"/orders/{order_id}"
        resp.set_cookie("cart", "empty")
        resp.set_cookie("last", str(order_id))
        resp.media = {"order": order_id, "item": order["item"]}


class Forms:
    def on_post(self, req: Request, resp: Response) -> None:
        step.sleep("nap", NAP)
        fields = req.get_media()
        resp.media = {"name": fields["name"], "city": fields["city"]}


class Uploads:
    def on_post(self, req: Request, resp: Response) -> None:
        told: dict[str, Any] = {}
        for part in req.get_media():
            if part.name == "file":
                data = part.stream.read()
                told |= {"filename": part.filename, "sha256": digest(data)}
            else:
                told[part.name] = part.text
        step.sleep("nap", NAP)
        resp.media = told


class Bytes:
    def on_post(self, req: Request, resp: Response) -> None:
        step.sleep("nap", NAP)
        resp.data = req.bounded_stream.read()[::-1]
        resp.content_type = "application/octet-stream"


class Me:
    def on_get(self, req: Request, resp: Response) -> None:
        step.sleep("nap", NAP)
        resp.media = {"authorization": req.auth, "session": req.cookies["session"]}


class Bug:
    def on_get(self, req: Request, resp: Response, when: str) -> None:
        step.run("greet", greet, when)
        if when == "later":
            step.sleep("nap", NAP)
        raise RuntimeError("bug")


class Flaky:
    def on_post(self, req: Request, resp: Response, key: str) -> None:
        stephttp.configure(retries=2)
        resp.media = {"attempts": step.run("flaky", flaky, key)}


falcon_app = falcon.App()
falcon_app.add_route("/hello/{name}", Hello())
falcon_app.add_route("/orders/{order_id:int}", Orders())
falcon_app.add_route("/forms", Forms())
falcon_app.add_route("/uploads", Uploads())
falcon_app.add_route("/bytes", Bytes())
falcon_app.add_route("/me", Me())
falcon_app.add_route("/bug/{when}", Bug())
falcon_app.add_route("/flaky/{key}", Flaky())
app = provider.wsgi(falcon_app)
