"""Requests: methods, queries, headers, bodies."""

from __future__ import annotations

from tests.matrix.cells import BINARY, Flow, cell
from tests.matrix.uses import Use


@cell(["x y", "é"], runs={"a": 1}, request={"query": "q=x+y&q=%C3%A9"})
def query(u: Use) -> Flow:
    yield u.do("a")
    return u.json(u.query()["q"])


_SENT = {"authorization": "Bearer t", "cookie": "s=1", "x-own": "mine", "accept": "a/b"}


@cell(["Bearer t", "1", "a/b"], runs={"a": 1}, request={"headers": _SENT})
def request_headers(u: Use) -> Flow:
    yield u.do("a")
    return u.json([u.header("authorization"), u.cookie("s"), u.header("accept")])


def _method(u: Use) -> Flow:
    yield u.do("a")
    return u.json([u.request.method, bytes((yield u.body())).decode()])


for _name in ("PUT", "PATCH", "DELETE", "OPTIONS"):
    _sent = "" if _name == "OPTIONS" else "text"
    _method.__name__ = f"method_{_name.lower()}"
    cell([_name, _sent], runs={"a": 1}, request={"method": _name, "content": _sent})(_method)


@cell(..., runs={"a": 1}, when=("first",), request={"method": "HEAD"})
def method_head(u: Use) -> Flow:
    yield u.do("a")
    return u.json(u.request.method, x_own="yes")


@cell([[255, 0, 254]], runs={"a": 1}, request={"method": "POST", "content": BINARY})
def body_bytes(u: Use) -> Flow:
    data = yield u.body()
    yield u.do("a")
    return u.json([list(data)])


@cell(1, runs={"a": 1}, request={"method": "POST", "content": b"not read"})
def body_not_read(u: Use) -> Flow:
    yield u.do("a")
    return u.json(1)


@cell('{"é": [1.0]}', runs={"a": 1}, request={
    "method": "POST", "content": '{"é": [1.0]}', "headers": {"content-type": "application/json"}
})  # fmt: skip
def body_json(u: Use) -> Flow:
    yield u.do("a")
    return u.json(bytes((yield u.body())).decode())


@cell({"name": "Ada & é", "n": "1"}, runs={"a": 1}, request={
    "method": "POST", "data": {"name": "Ada & é", "n": "1"}
})  # fmt: skip
def body_form(u: Use) -> Flow:
    yield u.do("a")
    return u.json((yield u.form()))


@cell({"note": "n", "file": ["a.txt", "in it"]}, runs={"a": 1}, request={
    "method": "POST", "data": {"note": "n"}, "files": {"file": ("a.txt", b"in it")}
})  # fmt: skip
def body_multipart(u: Use) -> Flow:
    yield u.do("a")
    return u.json((yield u.form()))


@cell("a", runs={"a": 1}, twice=True, when=("first",), request={
    "method": "POST", "headers": {"idempotency-key": "one"}
})  # fmt: skip
def idempotency_key(u: Use) -> Flow:
    return u.json((yield u.do("a")))


@cell("a", runs={"a": 1}, twice=True, when=("late",), request={
    "method": "POST", "headers": {"idempotency-key": "two"}
})  # fmt: skip
def idempotency_key_of_one_that_waits(u: Use) -> Flow:
    return u.json((yield u.do("a")))
