"""Readers of what comes from outside, each by itself: they return, or raise what they promise."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import jwt

from stephttp._client.api_calls import read_failures, read_state
from stephttp._client.flow import Answer
from stephttp._core.locations import absolute
from stephttp._wire import call_signatures, capsule, cut_entries, signatures, stored_state
from stephttp._wire.canonical_json import canonical
from stephttp._wire.durations import parse_duration
from stephttp._wire.http import Request, read_prefer
from stephttp._wire.ids import ulid_number
from stephttp.engine.model import tokens
from stephttp.engine.model.refused import Refused
from stephttp.engine.outbound.egress import parse_rule
from stephttp.engine.rules.answers import HTTPResponse, read_answer
from stephttp.engine.rules.conditions import equalities, expressions
from stephttp.engine.rules.due_times import retry_after_ms
from stephttp.engine.traces import otlp
from stephttp.engine.web.event_message import parse_event
from stephttp.errors import APIStatusError, ConfigurationError
from tests.engine.support import KEY, RUN, SDK
from tests.fuzzing.cases import Case, Target
from tests.fuzzing.engine_requests import BODIES, OPS
from tests.fuzzing.mutations import (
    NASTY,
    body_of,
    change_bytes,
    change_header,
    change_json,
    change_text,
)

NOW = 1_795_352_757
SECRET = b"s" * 32
EVENT = {
    "name": "e",
    "data": {
        "id": "o1",
        "n": 2,
        "f": 1.5,
        "t": "2026-01-31T12:00:00Z",
        "list": [1, "a", None, {"x": 1}],
        "map": {"a": {"b": True}},
        "none": None,
    },
}

CONDITIONS = [
    "async.data.id == event.data.id",
    "async.data.n > 1 && async.data.n < 2.5 || !false",
    "async.data.id == 'o1' && async.data.n == 2",
    "'o1' == async.data.id && async.data.map.a.b",
    "has(async.data.map.a) ? async.data.n in [1, 2] : false",
    "size(async.data.list) >= 4",
    "async.data.list.exists(x, x == 1) && async.data.list.all(y, y != 9)",
    "async.data.id.startsWith('o') || async.data.id.matches('^o[0-9]+$')",
    "timestamp(async.data.t) < timestamp('2030-01-01T00:00:00Z') + duration('1h30m')",
    "async.data.list.map(x, [x, x]).size() * 2 - 1 == 7",
    "int('12') + int(1.9) == 13",
    "string(async.data.n) + \"b\" == '2b'",
    "async.data['id'] == \"o1\" && async['data'] != null",
    "double(async.data.n) / 2.0 == 1.0 ? true : 1u < 2u",
    "{'a': 1, 'b': [2]}['b'][0] % 2 == 0",
    "async.data.list.filter(x, x > 0)[0] == 1 && b'abc' != b'\\x00'",
    "dyn(async.data).n == 2",
    "async.data.missing == null",
    "uint(3) == 3u && -async.data.n == -2",
    "type(1) == int",
    "async.data.list[3].x == 1 && async.data.f >= 1.5e0",
    "0x1F == 31 && 1e3 == 1000.0",
]


def cel(rng: Random) -> str:
    """A condition is refused, or is true or false for every event, and the index agrees."""
    text = rng.choice(CONDITIONS)
    for _ in range(rng.choice([0, 1, 2, 4])):
        kind = rng.random()
        if kind < 0.3:
            operator = rng.choice([" && ", " || ", " == ", " + ", " in ", " ? true : ", ", "])
            text = f"({text}){operator}({rng.choice(CONDITIONS)})"
        elif kind < 0.4:
            text = rng.choice(["(", "!", "-", "["]) * rng.choice([1, 30, 400]) + text
        elif kind < 0.5:
            variable = rng.choice("xyz")
            text = f"async.data.list.{rng.choice(['all', 'map', 'exists_one'])}({variable}, {text})"
        else:
            text = change_text(rng, text)
    try:
        condition = expressions.check(text, "if", expressions.WAIT_NAMES)
    except Refused:
        return "refused"
    event = change_json(rng, EVENT) if rng.random() < 0.7 else EVENT
    event = event if isinstance(event, dict) else {"data": event}
    holds = expressions.matches(text, {"event": EVENT, "async": event}, NOW * 1000)
    if condition.wanted is not None and holds:
        found = equalities.values_at(condition.wanted.keys, event)
        assert found == condition.wanted.values, (text, event, found, condition.wanted)
    return "true" if holds else "false"


def durations(rng: Random) -> str:
    seeds = ["1h30m", "30s", "2w", "500ms", "1us", "7d", "0s"]
    text = change_text(rng, rng.choice(seeds)) if rng.random() < 0.8 else str(rng.choice(NASTY))
    with suppress(ValueError):
        assert parse_duration(text).total_seconds() >= 0
        return "read"
    return "refused"


def delays(rng: Random) -> str:
    seeds = ["5", "Wed, 21 Oct 2026 07:28:00 GMT", "2026-01-31T12:00:00.5Z", "-1", "1e9"]
    found = retry_after_ms(change_text(rng, rng.choice(seeds)), NOW * 1000)
    assert found is None or found >= 0
    return "ignored" if found is None else "read"


def run_tokens(rng: Random) -> str:
    """No change of a token opens anything."""
    right = {
        "run": tokens.run_token(RUN, SECRET, NOW),
        "topics": tokens.realtime_token([(RUN, "a")], SECRET, NOW, 960, RUN),
    }[rng.choice(["run", "topics"])]
    kind = rng.random()
    if kind < 0.05:
        token = right
    elif kind < 0.5:
        token = change_text(rng, right)
    elif kind < 0.8:
        head, body, sign = right.split(".")
        claims = change_json(rng, jwt.decode(right, options={"verify_signature": False}))
        with suppress(TypeError, ValueError, UnicodeEncodeError):
            body = jwt.encode(claims if isinstance(claims, dict) else {"a": claims}, SECRET).split(
                "."
            )[1]
        token = rng.choice([f"{head}.{body}.{sign}", f"{head}.{body}.", f".{body}.{sign}"])
    else:
        token = str(rng.choice(NASTY))
    opened = [
        tokens.read_run_token(token, SECRET, NOW, 3600),
        tokens.read_realtime_token(token, SECRET, NOW),
    ]
    same = _decoded(token) == _decoded(right)
    assert same or opened == [None, None], (token, right)
    return "opened" if any(opened) else "refused"


def _decoded(token: str) -> Any:
    """Base64 has some freedom in its last character."""
    try:
        return jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError):
        return token


def signed_calls(rng: Random) -> str:
    """No change of a call verifies, neither of its headers nor of its signature."""
    headers = [
        (b"x-run-id", RUN.encode()),
        (b"x-inngest-job-id", b"j"),
        (b"x-stephttp-state", b"2"),
    ]
    call: dict[str, Any] = {
        "method": "POST",
        "target": "/a?b=1",
        "headers": headers,
        "body": b"{}ab",
    }
    signature = call_signatures.sign_call(KEY, NOW, **call)
    changed = dict(call)
    part = rng.choice(["target", "headers", "body", "signature"])
    given = signature
    if part == "signature":
        given = change_text(rng, signature)
    elif part == "headers":
        at = rng.randrange(len(headers))
        name, value = headers[at]
        changed["headers"] = [*headers[:at], (name, change_header(rng, value)), *headers[at + 1 :]]
    elif part == "target":
        changed["target"] = call_signatures.request_target(change_text(rng, "/a"), "b=1")
    else:
        changed["body"] = change_bytes(rng, call["body"])
    holds = call_signatures.verify_call(given, [KEY], NOW, **changed)
    assert holds == (changed == call and given == signature), (given, changed)
    for text in (given, change_text(rng, signatures.sign(KEY, b"{}", NOW))):
        valid = signatures.verify(text, changed["body"], [KEY], NOW)
        assert not valid or (changed["body"] == b"{}" and "&s=" in text)
    signatures.bearer_matches(change_text(rng, f"Bearer {KEY}"), [KEY])
    return "right" if holds else "wrong"


def answers(rng: Random) -> str:
    body = body_of(rng, rng.choice([OPS, OPS[:2], [OPS[-1]], OPS[-1], {"error": {"name": "E"}}]))
    pairs = {**SDK, "retry-after": "5", "x-inngest-no-retry": "true", "x-inngest-req-version": "2"}
    headers = [(k, change_header(rng, v.encode()).decode("latin-1")) for k, v in pairs.items()]
    status = rng.choice([200, 201, 206, 206, 206, 302, 400, 401, 404, 421, 429, 500, 503, 999])
    return type(read_answer(HTTPResponse(status, headers, body), NOW * 1000)).__name__


def states(rng: Random) -> str:
    """What a server says of a run, and what the SDK keeps there."""
    memos = {
        "a" * 40: {"data": 1},
        "b" * 40: {"error": {"name": "E", "message": "m"}},
        "c" * 40: {"input": [1]},
        "d" * 40: {"pending": True},
        "e" * 40: None,
        stored_state.STEPS: {"a" * 40: ["StepRun", "a", 0, ""]},
    }
    answer = Answer(
        200, {stored_state.FAILURES: change_text(rng, f"{'a' * 40}=1, x=2")}, body_of(rng, memos)
    )
    read_failures(answer)
    kept = {
        "headers": [["host", "a"]],
        "client": ["1.2.3.4", 5],
        "scheme": "http",
        "sealed": "AQ==",
        "secrets": {"headers": [["cookie", "a"]], "body": "YQ=="},
        "failing": ["a" * 40],
        "carried": {"a": "b"},
        "run_id": RUN,
    }
    with suppress(ValueError):
        found = capsule.unpack(body_of(rng, kept), RUN)
        request = Request("GET", "/", "", [(b"content-length", b"0")])
        with suppress(UnicodeEncodeError):  # names and values are those of a request, by our hand
            capsule.restore(request, found)
    cut_entries.read_entry(body_of(rng, {"step": "a" * 40, "id": "a", "after_ns": 1, "known": 2}))
    try:
        entries, _ = read_state(answer)
    except APIStatusError:
        return "refused"
    for entry in entries.values():
        stored_state.read_memo(entry)
    return "read"


def bodies_with_state(rng: Random) -> str:
    size = change_text(rng, "10") if rng.random() < 0.5 else str(rng.randint(-5, 100_000))
    headers = [(stored_state.SIZE.encode(), size.encode()), (b"content-length", b"20")]
    request = Request("POST", "/", "", headers, body=rng.randbytes(20))
    state = stored_state.detach(request)
    assert state is None or len(state) + len(request.body) == 20
    return "none" if state is None else "detached"


def events(rng: Random) -> str:
    right = BODIES["/e/{key}"][0]
    try:
        parse_event(body_of(rng, right), 100_000, RUN, NOW * 1000)
    except Refused:
        return "refused"
    return "read"


def spans(rng: Random) -> str:
    (right,) = BODIES["userland"]
    try:
        if rng.random() < 0.5:
            otlp.read_json(body_of(rng, right))
        else:
            otlp.read_protobuf(
                change_bytes(rng, b"\n\x10\x12\x0e\x12\x0c\n\x10" + rng.randbytes(16))
            )
    except Refused:
        return "refused"
    return "read"


def texts(rng: Random) -> str:
    """Small readers: preferences, ids, addresses, rules, canonical JSON."""
    prefer = change_header(rng, b'respond-async, wait=10; a="b", handling=lenient')
    wait = read_prefer([(b"prefer", prefer)]).wait
    assert wait is None or 0 <= wait <= 300
    with suppress(ValueError):
        ulid_number(change_text(rng, RUN))
    for name in (b"location", b"refresh", b"content-location"):
        value = change_header(rng, b"0; url=../a?b=1#c" if name == b"refresh" else b"../a?b=1#c")
        absolute([(name, value)], "http://app.test", "/x/y", "")
    with suppress(ConfigurationError):
        parse_rule(change_text(rng, rng.choice(["*.a.test:80", "10.0.0.0/8", "[::1]:1", "*"])))
    call_signatures.request_target(change_text(rng, "/a/%7E?x"), change_text(rng, "a=b&c=%zz"))
    text = body_of(rng, EVENT)
    form = canonical(text)
    assert form is None or canonical(form) == form
    return "not JSON" if form is None else "JSON"


READERS: list[Callable[[Random], str]] = [
    cel,
    durations,
    delays,
    run_tokens,
    signed_calls,
    answers,
    states,
    bodies_with_state,
    events,
    spans,
    texts,
]


def _target(reader: Callable[[Random], str]) -> Target:
    async def case(rng: Random) -> str:
        return reader(rng)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Case]:
        logging.getLogger("stephttp.engine.rules.conditions").setLevel(logging.WARNING)
        yield case

    return Target(reader.__name__.replace("_", "-"), opened, block=1000)


TARGETS = [_target(reader) for reader in READERS]
