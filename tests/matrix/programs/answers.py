"""Answers in the manner of each framework."""

from __future__ import annotations

from tests.matrix.cells import BINARY, Flow, cell
from tests.matrix.uses import Use


@cell(..., 404, runs={"a": 1})
def not_found(u: Use) -> Flow:
    yield u.do("a")
    raise u.abort(404, "no such order")


@cell(..., 409, runs={"a": 1})
def conflict(u: Use) -> Flow:
    yield u.do("a")
    raise u.abort(409, "taken")


@cell(..., 503, runs={"a": 1})
def unavailable(u: Use) -> Flow:
    yield u.do("a")
    raise u.abort(503, "elsewhere")


@cell({"detail": "short"}, 422, runs={"a": 1})
def error_answer(u: Use) -> Flow:
    yield u.do("a")
    return u.json({"detail": "short"}, 422, x_own="yes")


@cell({"detail": "away"}, 502, runs={"a": 1})
def error_answer_5xx(u: Use) -> Flow:
    yield u.do("a")
    return u.json({"detail": "away"}, 502, x_own="yes")


@cell(..., 307, runs={"a": 1})
def redirect(u: Use) -> Flow:
    yield u.do("a")
    return u.redirect("/elsewhere?x=1")


@cell(..., 204, runs={"a": 1})
def empty(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(b"", 204, {"x-own": "yes"})


@cell(..., 200, runs={"a": 1}, when=("late",))
def empty_200(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(b"", 200, {"x-own": "yes", "content-type": "text/plain"})


@cell(1, 201, runs={"a": 1})
def headers_and_cookie(u: Use) -> Flow:
    yield u.do("a")
    answer = u.json(1, 201, x_own="yes", location="/orders/1", etag='"x"')
    answer.set_cookie("a", "1", httponly=True)
    return answer


@cell(1, runs={"a": 1})
def header_in_latin_1(u: Use) -> Flow:
    yield u.do("a")
    return u.json(1, x_own="é")


@cell(1, runs={"a": 1})
def cookies(u: Use) -> Flow:
    yield u.do("a")
    answer = u.json(1)
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


@cell(..., runs={"a": 1})
def text(u: Use) -> Flow:
    yield u.do("a")
    return u.raw("Grüße 🙂\n".encode(), 200, {"content-type": "text/plain; charset=utf-8"})


@cell(..., runs={"a": 1}, when=("late",))
def text_like_an_envelope(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(b'{"data":{"status":404,"headers":{},"body":""}}', 200, {"content-type": "a/b"})


@cell(..., runs={"a": 1})
def binary(u: Use) -> Flow:
    yield u.do("a")
    return u.raw(BINARY, 200, {"content-type": "application/octet-stream"})


@cell(..., runs={"a": 1})
def chunks(u: Use) -> Flow:
    yield u.do("a")
    return u.chunks([b"one ", b"two ", b"three"])


@cell(1, runs={"a": 1, "behind": 1})
def background_task(u: Use) -> Flow:
    yield u.do("a")
    return u.after(u.json(1), lambda: u.counts.body("behind"))


@cell(..., runs={"a": 1}, when=("first",), request={"headers": {"accept": "text/event-stream"}})
def pushes(u: Use) -> Flow:
    u.stream.push("before")
    yield u.do("a")
    u.stream.push({"n": 1})
    return u.json(1)
