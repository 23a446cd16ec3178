"""Whose an idempotency key is: two callers who chose the same one get their own answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Request, Response

import stephttp
from stephttp import Checkpointing, Provider, step
from stephttp._run.callers import after, caller_of, host_of, later_caller, scope_of
from stephttp._wire.http import Request as Neutral
from stephttp.sync import step as blocking
from tests.durable import APP, Durable, durable

NAP = timedelta(minutes=1)
LONG, OTHER = "5f2b7c9e0d4a4f1e", "a0d94c5b8e7f4d12"


def request(*cookies: str, **headers: str) -> Neutral:
    found = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
    return Neutral("POST", "/", "", [*found, *((b"cookie", c.encode()) for c in cookies)])


SAME = {
    "statistics beside a session": (["session=a; _ga=1"], ["_ga=2; session=a"], {}),
    "anything beside a session": (["sessionid=a; seen=1"], ["sessionid=a; seen=2"], {}),
    "HTTP/2 splits the header": (["session=a; sid=b"], ["sid=b", "session=a"], {}),
    "a token of forms": (["sessionid=a; csrftoken=1"], ["sessionid=a; csrftoken=2"], {}),
    "only statistics": (["_ga=1; _gid=2"], [], {}),
    "a balancer": (["shop=a; AWSALB=1"], ["shop=a; AWSALB=2"], {}),
    "Angular's token": (["shop=a; XSRF-TOKEN=1"], ["shop=a; XSRF-TOKEN=2"], {}),
    "preferences beside a bearer": (["theme=dark"], ["theme=light"], {"authorization": "Bearer x"}),
    "a tool's own session": ([f"session=a; _hjSession_1={LONG}"], ["session=a"], {}),
    "a tool alone": ([f"_hjSession_1={LONG}"], [], {}),
    "a balancer of logins": ([f"BIGipServerauth-pool={LONG}"], [], {}),
    "short ones beside a key": (["lang=en"], ["lang=de"], {"x-api-key": "app"}),
    "a token of forms in a header": ([], [], {"x-csrf-token": "1"}),
    "long ones by their names": ([f"my_auth={LONG}; a=1"], [f"my_auth={LONG}; a=2"], {}),
}


@pytest.mark.parametrize(("one", "other", "headers"), SAME.values(), ids=list(SAME))
def test_who_repeats_a_request_is_known_again(one: Any, other: Any, headers: Any) -> None:
    assert caller_of(request(*one, **headers)) == caller_of(request(*other, **headers))


DIFFERENT = {
    "a session": (request("session=a"), request("session=b")),
    "a session and nobody": (request("session=a"), request()),
    "with a prefix": (request("__Host-session=a"), request("__Host-session=b")),
    "of ASP.NET": (request(f".AspNetCore.Identity.Application={LONG}"),
                   request(f".AspNetCore.Identity.Application={OTHER}")),
    "any cookie may be the session's": (request("shop=a; _ga=1"), request("shop=b; _ga=1")),
    # The rest is the same for all, so it must not be all that counts.
    "a mark is no session": (request("remember_me=1; shop=a"), request("remember_me=1; shop=b")),
    "one of two sessions": (request("session=a; auth_token=x"), request("session=a; auth_token=y")),
    "a site's password": (request("shop=a", authorization="Basic c2l0ZTpzaXRl"),
                          request("shop=b", authorization="Basic c2l0ZTpzaXRl")),
    "a header that others can write": (request("shop=a", x_user_id="5"),
                                       request("shop=b", x_user_id="5")),
    "a bearer": (request(authorization="Bearer a"), request(authorization="Bearer b")),
    "a key": (request(x_api_key="a"), request(x_api_key="b")),
    "a proxy's login": (request(x_forwarded_user="a"), request(x_forwarded_user="b")),
    "a proxy's certificate": (request(x_forwarded_client_cert="Hash=a"),
                              request(x_forwarded_client_cert="Hash=b")),
    "a session that stands in a credential": (request("session=a"),
                                              request(authorization="session=a")),
    "a login that stands in a credential": (request(x_forwarded_user="a"),
                                            request(authorization="x-forwarded-user: a")),
    "a key of all who use an application": (request(f"uid={LONG}", x_api_key="app"),
                                            request(f"uid={OTHER}", x_api_key="app")),
    **{name: (request(f"{name}={LONG}"), request(f"{name}={OTHER}")) for name in (
        "_gallery_session", "_gateway_session", "_gallery", "cf_session", "CF_Authorization",
        "mp_session", "ph_auth_token", "bm_session", "AWSELBAuthSessionCookie-0",
    )},
    **{name: (request(**{name: LONG}), request(**{name: OTHER})) for name in (
        "x_goog_api_key", "ocp_apim_subscription_key", "private_token", "x_auth_key", "x_token",
        "x_auth", "auth_token", "x_id_token", "cf_access_jwt_assertion", "x_goog_iap_jwt_assertion",
        "x_amz_security_token", "x_hasura_admin_secret", "x_session_id", "x_sid", "apikey",
        "x_tenant_id", "x_userinfo",
    )},
}  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=list(DIFFERENT))
def test_two_callers_are_told_apart(one: Neutral, other: Neutral) -> None:
    assert caller_of(one) != caller_of(other)
    assert caller_of(one, "CN=a") != caller_of(one, "CN=b"), "by the server's own knowledge, too"


def test_what_the_server_knows_is_not_written_by_a_caller() -> None:
    assert caller_of(request(), "CN=a") != caller_of(request(authorization="server: CN=a"))


def test_what_a_proxy_knows_does_not_hide_its_users() -> None:
    one, other = (caller_of(request(f"uid={uid}"), "CN=proxy") for uid in (LONG, OTHER))
    assert one != other


def test_only_a_secret_proves_who_a_caller_is() -> None:
    for one in (request("lang=en"), request(x_user_id="5"), request(authorization="Basic c2l0ZQ")):
        assert caller_of(one).text
        assert not caller_of(one).proven
    for one in (request("session=a"), request(f"my_token={LONG}"), request(x_api_key="a")):
        assert caller_of(one).proven
    assert caller_of(request(), "CN=a").proven
    assert not caller_of(request(x_session_id="k"), key_header="X-Session-Id").parts


def test_tenants_do_not_share_callers() -> None:
    hosts = [request(host="a"), request(host="b"), request(host="a", x_forwarded_host="b")]
    assert len({scope_of(APP, "", "cookie: session=a", host_of(one)) for one in hosts}) == 3


def later(before: Neutral, *lines: str, whole: bool = True) -> str:
    headers = [(b"set-cookie", line.encode()) for line in lines]
    return later_caller(before, headers, whole=whole)


def test_who_has_a_new_session_or_more_than_before_is_known_from_then_on() -> None:
    assert later(request("lang=en"), "session=a") == "cookie: session=a"
    assert later(request("lang=en"), "session=a", whole=False) == "cookie: session=a"
    assert later(request("session=a"), "session=b") == "cookie: session=b"
    assert later(request(), "cart=a") == "cookie: cart=a", "who has a cart could also show nothing"


ENDED = ("sessionid=; Max-Age=0", "sessionid=", "sessionid=deleted",
         "sessionid=x; expires=Sat, 01 Jan 2000 00:00:00 GMT")  # fmt: skip


@pytest.mark.parametrize("line", ENDED)
def test_whose_session_ends_is_not_known_any_more(line: str) -> None:
    before = request("sessionid=a; lang=en")
    assert later(before, line) == later(before, line, "restore_code=x") == ""
    assert later(before, line, "session=guest") == ""


def test_who_has_less_than_before_is_another() -> None:
    assert later(request(), "theme=dark", "flash=1", whole=False) == "", "a credential may be lost"
    assert later(request("uid=a"), "uid=b") == ""
    assert later(request("uid=a; lang=en"), "uid=; Max-Age=0") == ""
    assert later(request("session=a"), "theme=dark") == "", "the same as before"


AFTER = {
    "a login": ("a=1", ["session=x; Path=/; HttpOnly"], "a=1; session=x"),
    "a renewed session": ("session=x; a=1", ["session=y; Max-Age=60"], "session=y; a=1"),
    "a logout by age": ("session=x; a=1", ["session=; Max-Age=0"], "a=1"),
    "a logout by date": ("session=x", ["session=; expires=Thu, 01 Jan 1970 00:00:00 GMT"], ""),
    "a logout by an empty value": ("session=x; a=1", ["session=; Path=/"], "a=1"),
    "two of them": ("", ["a=1", 'b="x y"; Secure'], 'a=1; b="x y"'),
}


@pytest.mark.parametrize(("before", "answer", "expected"), AFTER.values(), ids=list(AFTER))
def test_who_asks_again_has_the_cookies_of_the_answer(
    before: str, answer: list[str], expected: str
) -> None:
    headers = [(b"Set-Cookie", line.encode()) for line in answer]
    assert after(request(before), headers).header(b"cookie") == expected


class Shop:
    """Gives a card and opens a session, at once or after a wait."""

    def __init__(self) -> None:
        self.charged: list[str] = []

    def charge(self, name: str) -> int:
        self.charged.append(name)
        return len(self.charged)

    def fastapi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/{kind}")
        async def card(kind: str, request: Request, response: Response) -> str:
            name = request.cookies.get("session", "nobody")
            if kind == "late":
                stephttp.configure(idempotency="k")
            await step.run("charge", self.charge, name)
            if kind != "now":
                await step.sleep("nap", NAP)
            response.set_cookie("session", f"of-{name}")
            return f"card of {name}"

        return provider.asgi(app)

    def threads(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/{kind}")
        def card(kind: str, request: Request, response: Response) -> str:
            name = request.cookies.get("session", "nobody")
            if kind == "late":
                stephttp.configure(idempotency="k")
            blocking.run("charge", self.charge, name)
            if kind != "now":
                blocking.sleep("nap", NAP)
            response.set_cookie("session", f"of-{name}")
            return f"card of {name}"

        return provider.asgi(app)

    def flask(self, provider: Provider) -> Any:
        app = flask.Flask("shop")

        @app.post("/<kind>")
        def card(kind: str) -> flask.Response:
            name = flask.request.cookies.get("session", "nobody")
            if kind == "late":
                stephttp.configure(idempotency="k")
            blocking.run("charge", self.charge, name)
            if kind != "now":
                blocking.sleep("nap", NAP)
            response = flask.jsonify(f"card of {name}")
            response.set_cookie("session", f"of-{name}")
            return response

        return provider.wsgi(app)


FRAMEWORKS = pytest.mark.parametrize("framework", ["fastapi", "threads", "flask"])


def serving(shop: Shop, framework: str, **options: Any) -> AbstractAsyncContextManager[Durable]:
    build: Callable[[Provider], Any] = getattr(shop, framework)
    given = {"idempotency_header": "Idempotency-Key", **options}
    return durable(build, wsgi=framework == "flask", **given)


async def send(world: Durable, path: str, session: str = "", **more: str) -> httpx2.Response:
    headers = {"idempotency-key": "1", **more}
    if session:
        headers["cookie"] = f"session={session}"
    world.client.cookies.clear()
    return await world.client.post(path, headers=headers)


def opens(answer: httpx2.Response) -> str:
    return answer.headers.get("set-cookie", "").partition(";")[0]


@FRAMEWORKS
@pytest.mark.parametrize("mode", [Checkpointing.performant, Checkpointing.safe])
async def test_each_session_gets_its_own_answer(framework: str, mode: Checkpointing) -> None:
    shop = Shop()
    async with serving(shop, framework, checkpointing=mode) as world:
        for name in ("alice", "bob", "alice", "bob"):
            answer = await send(world, "/now", name)
            assert (answer.json(), opens(answer)) == (f"card of {name}", f"session=of-{name}")
        firsts = [await send(world, "/wait", name, **{"idempotency-key": "2"})
                  for name in ("alice", "bob", "alice", "bob")]  # fmt: skip
        assert len({first.headers["x-run-id"] for first in firsts}) == 2
        for first, name in zip(firsts[:2], ("alice", "bob"), strict=True):
            answer = await world.follow(first)
            assert (answer.json(), opens(answer)) == (f"card of {name}", f"session=of-{name}")
        again = await send(world, "/wait", "alice", **{"idempotency-key": "2"})
        assert (again.json(), opens(again)) == ("card of alice", "session=of-alice")
    assert sorted(shop.charged) == ["alice", "alice", "bob", "bob"]


@FRAMEWORKS
async def test_cookies_go_to_nobody_who_is_not_known(framework: str) -> None:
    shop = Shop()
    async with serving(shop, framework) as world:
        first, second = await send(world, "/now"), await send(world, "/now")
        assert (opens(first), opens(second)) == ("session=of-nobody", "")
        assert first.json() == second.json() == "card of nobody"
        for path, key in (("/wait", "2"), ("/late", "")):
            first = await send(world, path, **{"idempotency-key": key})
            second = await send(world, path, **{"idempotency-key": key})
            assert first.headers["x-run-id"] == second.headers["x-run-id"]
            answers = [await world.follow(first), await world.api.get(second.headers["location"]),
                       await send(world, path, **{"idempotency-key": key})]  # fmt: skip
            assert {answer.json() for answer in answers} == {"card of nobody"}
            assert [opens(answer) for answer in answers] == ["session=of-nobody", "", ""]
    assert shop.charged == ["nobody"] * 3


@FRAMEWORKS
async def test_the_application_may_say_whose_a_key_is(framework: str) -> None:
    shop = Shop()

    def team(request: stephttp.Request) -> str | None:
        return request.cookies.get("session", "").partition("-")[0] or None

    async with serving(shop, framework, idempotency_scope=team) as world:
        for path, key in (("/now", "1"), ("/late", "")):
            one, two, three = [
                await send(world, path, name, **{"idempotency-key": key})
                for name in ("red-alice", "red-bob", "blue-carol")
            ]
            assert one.headers["x-run-id"] == two.headers["x-run-id"] != three.headers["x-run-id"]
            if path == "/late":
                one, two = await world.follow(one), await world.api.get(two.headers["location"])
            assert opens(one) == opens(two) == "session=of-red-alice", "the same team"
    assert shop.charged == ["red-alice", "blue-carol"] * 2


async def test_an_endpoint_may_say_whose_its_keys_are() -> None:
    app, shop = FastAPI(), Shop()

    def build(provider: Provider) -> Any:
        @app.post("/{order}")
        @provider.endpoint(
            idempotency=lambda order: order,
            idempotency_scope=lambda request: request.header(b"x-team"),
        )
        async def card(order: str) -> int:
            return await step.run("charge", shop.charge, order)

        return provider.asgi(app)

    async with durable(build) as world:
        numbers = [(await world.client.post("/7", headers={"x-team": team})).json()
                   for team in ("red", "blue", "red")]  # fmt: skip
    assert numbers == [1, 2, 1]


async def test_an_engine_that_cannot_leave_cookies_out_sends_nobody_to_them() -> None:
    shop = Shop()
    async with serving(shop, "fastapi") as world:
        world.lacks("outputs-without-cookies")
        first = await send(world, "/wait")
        assert first.status_code == 303
        second = await send(world, "/wait")
        assert (second.status_code, second.headers["retry-after"]) == (409, "5")
        assert (await world.follow(first)).json() == "card of nobody"
        third = await send(world, "/wait")
        assert (third.json(), opens(third)) == ("card of nobody", "")


async def test_the_engine_gets_no_secret() -> None:
    shop = Shop()
    async with serving(shop, "fastapi") as world:
        await send(world, "/now", "secretofalice")
        sent = b"".join(request.content for request in world.to_engine.requests)
        claim = sent[sent.index(b'"claim"') :].partition(b"}")[0]
        assert b"secretofalice" not in claim


async def awaited(request: stephttp.Request) -> str:
    return ""


@pytest.mark.parametrize("scope", ["session", awaited])
def test_what_is_no_plain_function_is_refused(scope: Any) -> None:
    with pytest.raises(stephttp.ConfigurationError, match="idempotency_scope: "):
        stephttp.setup(APP, idempotency_scope=scope)
    provider = stephttp.setup(APP)
    with pytest.raises(stephttp.ConfigurationError, match="idempotency_scope: "):
        provider.endpoint(idempotency=str, idempotency_scope=scope)


def test_an_endpoint_without_keys_needs_no_scope() -> None:
    with pytest.raises(stephttp.ConfigurationError, match="give both"):
        stephttp.setup(APP).endpoint(idempotency_scope=str)


@pytest.mark.parametrize("answer", [b"a", 7, awaited])
async def test_what_a_scope_returns_has_to_be_text(answer: Any) -> None:
    def scope(request: stephttp.Request) -> Any:
        return answer(request) if callable(answer) else answer

    async with serving(Shop(), "fastapi", idempotency_scope=scope) as world:
        with pytest.raises(stephttp.UsageError, match="must return a text or None"):
            await send(world, "/now")


@FRAMEWORKS
@pytest.mark.parametrize("path", ["/now", "/wait"])
async def test_who_logs_in_by_the_answer_is_known_again(framework: str, path: str) -> None:
    shop = Shop()
    async with serving(shop, framework) as world:
        first = answer = await send(world, path)
        if path == "/wait":
            answer = await world.follow(first)
        again = await send(world, path, "of-nobody")
        assert again.headers["x-run-id"] == first.headers["x-run-id"]
        assert (again.json(), opens(again)) == (answer.json(), opens(answer))
        other = await send(world, path, "of-somebody")
        assert other.headers["x-run-id"] != first.headers["x-run-id"]
    assert shop.charged == ["nobody", "of-somebody"]


class Account:
    """Gives what is its user's, and ends or begins sessions."""

    def fastapi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/{kind}")
        async def account(kind: str, request: Request, response: Response) -> str:
            number = await step.run("number", str, request.headers.get("x-session-token", ""))
            if kind == "wait":
                await step.sleep("nap", NAP)
            if kind == "leave":
                response.delete_cookie("sessionid")
            response.set_cookie("theme", "dark")
            return f"for {number}"

        return provider.asgi(app)

    def flask(self, provider: Provider) -> Any:
        app = flask.Flask("account")

        @app.post("/<kind>")
        def account(kind: str) -> flask.Response:
            token = flask.request.headers.get("x-session-token", "")
            number = blocking.run("number", str, token)
            if kind == "wait":
                blocking.sleep("nap", NAP)
            response = flask.jsonify(f"for {number}")
            if kind == "leave":
                response.delete_cookie("sessionid")
            response.set_cookie("theme", "dark")
            return response

        return provider.wsgi(app)


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
async def test_a_stranger_does_not_get_what_the_first_caller_got(framework: str) -> None:
    build = getattr(Account(), framework)
    options: Any = {"wsgi": framework == "flask", "idempotency_header": "Idempotency-Key"}
    async with durable(build, **options) as world:

        async def call(path: str, cookie: str = "", **headers: str) -> httpx2.Response:
            world.client.cookies.clear()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            sent = {"idempotency-key": path, "cookie": cookie, **named}
            return await world.client.post(path, headers=sent)

        first = await call("/wait", x_session_token=LONG)
        assert (await world.follow(first)).json() == f"for {LONG}"
        stranger = await call("/wait", "theme=dark")
        assert stranger.headers["x-run-id"] != first.headers["x-run-id"]
        first = await call("/leave", f"sessionid={LONG}; lang=en")
        for cookie in ("lang=en", "lang=en; theme=dark"):
            stranger = await call("/leave", cookie)
            assert stranger.headers["x-run-id"] != first.headers["x-run-id"]
        first, second = await call("/now", "lang=en"), await call("/now", "lang=en")
        assert first.headers["x-run-id"] == second.headers["x-run-id"]
        assert (opens(first), opens(second)) == ("theme=dark", ""), "lang=en proves nothing"
        third = await call("/now", "lang=en", host="b.example.com")
        assert third.headers["x-run-id"] != first.headers["x-run-id"], "another tenant"
