"""Reads what an app registers (docs/protocol.md 9.1, 9.2, 9.4). Pure.

An app says the same in two ways: in the body of `POST /fn/register`, or, "in band", in its answer
to a ping. Fields that cannot be read are refused. A function that asks for what this engine cannot
do is known, but never started (`Endpoint.refused`): a limit that is not kept would be found out too
late.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from stephttp._wire.limits import MAX_RETRIES
from stephttp.engine.model import function_ids
from stephttp.engine.model.function import App, Function, Registration, Trigger
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.functions import cron_times
from stephttp.engine.rules.functions.configuration import read_options, read_period
from stephttp.engine.rules.functions.run_events import RESERVED, names_of

_DEFAULT_RETRIES = 4
_MOST_FUNCTIONS = 1000
_MOST_TRIGGERS = 10
_LONGEST = 1000
"""Characters of a name or a URL."""
_LONGEST_SDK = 100
_SHOWN = 200
"""Characters of what an app says, in what is said of it."""
_SCHEMES = ("http", "https")
_CAN_DO = frozenset(
    {"id", "name", "triggers", "steps", "checkpoint", "concurrency", "throttle", "priority"}
    | {"idempotency", "rateLimit", "debounce", "batchEvents", "singleton", "cancel", "timeouts"}
)
"""Options that are fulfilled."""


class _Trigger(Struct):
    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    jitter: str | None = None


class _Retries(Struct):
    attempts: int | None = None


class _Runtime(Struct):
    url: str
    type: str = "http"


class _Step(Struct):
    runtime: _Runtime
    retries: _Retries | None = None


class _Config(Struct):
    id: str
    steps: dict[str, _Step]
    triggers: list[_Trigger] = []
    name: str | None = None


class _Message(Struct):
    url: str
    functions: list[Raw]
    appname: str = ""
    app_id: str = ""
    framework: str = ""
    sdk: str = ""
    sdk_language: str = ""
    sdk_version: str = ""


def read(body: bytes, sdk: str) -> Registration:
    """Read a registration.

    Args:
        body: JSON; SDKs write its keys in upper and lower case.
        sdk: what the app says of its SDK in a header; empty if it does not.

    Raises:
        Refused: it is not acceptable; the text names the field.
    """
    keys = _decode(body, dict[str, Raw], "body")
    lower = {key.lower(): raw for key, raw in keys.items()}
    message = _decode(msgspec.json.encode(lower), _Message, "body")
    name = message.appname or message.app_id
    if not name or len(name) > _LONGEST:
        raise Refused(f"appName: must have 1 to {_LONGEST} characters")
    if len(message.functions) > _MOST_FUNCTIONS:
        raise Refused(
            f"functions: {len(message.functions)}, at most {_MOST_FUNCTIONS} are accepted"
        )
    check_url(message.url, "url")
    sdk = (sdk or _sdk(message))[:_LONGEST_SDK]
    app_id = function_ids.app_id(name)
    functions = [
        _function(bytes(raw), f"functions[{number}]", app_id, sdk)
        for number, raw in enumerate(message.functions)
    ]
    slugs: set[str] = set()
    for number, function in enumerate(functions):
        slug = function.endpoint.slug
        if slug in slugs:
            raise Refused(f"functions[{number}].id: {slug!r} is the id of two functions")
        slugs.add(slug)
    framework = message.framework[:_LONGEST_SDK]
    app = App(app_id, name, message.url, sdk, framework)
    return Registration(app, tuple(functions), digest_of(app, functions))


def digest_of(app: App, functions: Iterable[Function]) -> bytes:
    """Return what tells one registration of an app from another.

    A newer engine may do what an older one refused: to it, the same is something new.
    """
    digest = sha256(msgspec.json.encode([app.name, app.url, app.sdk, app.framework]))
    for function in functions:
        refused = (function.endpoint.refused or "").encode()
        digest.update(b"\0" + function.config + b"\0" + refused)
    return digest.digest()


def _function(raw: bytes, field: str, app_id: str, sdk: str) -> Function:
    options = _decode(raw, dict[str, Any], field)
    config = _decode(raw, _Config, field)
    if not config.id or len(config.id) > _LONGEST:
        raise Refused(f"{field}.id: must have 1 to {_LONGEST} characters")
    if len(config.name or "") > _LONGEST:
        raise Refused(f"{field}.name: must have at most {_LONGEST} characters")
    if len(config.steps) != 1:
        raise Refused(f"{field}.steps: expected one, got {len(config.steps)}")
    ((step_id, step),) = config.steps.items()
    where = f"{field}.steps.{step_id[:_SHOWN]}"
    read = read_options(options, field)
    triggers, unsent = _triggers(config, field)
    refused = _unknown_options(options) or unsent
    if step.runtime.type != "http":
        kind = step.runtime.type[:_SHOWN]
        refused = f"steps.{step_id[:_SHOWN]}.runtime.type: {kind!r}; only 'http' can be called"
        domain, path, query = "", "/", ""
    else:
        check_url(step.runtime.url, f"{where}.runtime.url")
        parts = urlsplit(step.runtime.url)
        domain, path, query = f"{parts.scheme}://{parts.netloc}", parts.path or "/", parts.query
    endpoint = Endpoint(
        app_id=app_id,
        fn_id=function_ids.function_id(app_id, config.id),
        slug=config.id,
        event_name="",
        fn=config.id,
        domain=domain,
        method="POST",
        path=path,
        sdk=sdk,
        retries=_retries(step, f"{where}.retries.attempts"),
        request_version=-1,
        query=query,
        refused=refused,
    )
    return Function(endpoint, config.name or config.id, tuple(triggers), raw, read)


def _triggers(config: _Config, field: str) -> tuple[list[Trigger], str | None]:
    """Return the triggers, and why one cannot come."""
    if len(config.triggers) > _MOST_TRIGGERS:
        raise Refused(
            f"{field}.triggers: {len(config.triggers)}, at most {_MOST_TRIGGERS} are accepted"
        )
    triggers, refused = [], None
    for number, one in enumerate(config.triggers):
        where = f"{field}.triggers[{number}]"
        if one.cron is not None:
            triggers.append(_timed(one, one.cron, where))
        elif not one.event:
            raise Refused(f"{where}.event: must name an event")
        elif len(one.event) > _LONGEST:
            raise Refused(f"{where}.event: must have at most {_LONGEST} characters")
        elif one.event.startswith(RESERVED) and not names_of(Trigger(one.event)):
            refused = f"triggers[{number}].event: {one.event!r} is not sent by this engine"
        else:
            if one.expression:
                expressions.check(one.expression, f"{where}.expression", expressions.CANCEL_NAMES)
            triggers.append(Trigger(one.event, one.expression or None))
    return triggers, refused


def _timed(trigger: _Trigger, cron: str, field: str) -> Trigger:
    if trigger.event or trigger.expression:
        raise Refused(f"{field}: has a time and an event; make them two triggers")
    if len(cron) > _LONGEST:
        raise Refused(f"{field}.cron: must have at most {_LONGEST} characters")
    try:
        cron_times.check(cron)
    except ValueError as error:
        raise Refused(f"{field}.cron: {error}") from None
    jitter_ms = 0 if not trigger.jitter else read_period(trigger.jitter, f"{field}.jitter")
    return Trigger("", cron=cron, jitter_ms=jitter_ms)


def _unknown_options(options: dict[str, Any]) -> str | None:
    for name, value in options.items():
        if name not in _CAN_DO and value not in (None, [], {}):
            return f"{name[:_SHOWN]}: this engine cannot do that yet"
    return None


def _retries(step: _Step, field: str) -> int:
    attempts = None if step.retries is None else step.retries.attempts
    if attempts is None:
        return _DEFAULT_RETRIES
    if attempts < 0:
        raise Refused(f"{field}: must not be negative")
    return min(attempts, MAX_RETRIES)


def check_url(url: str, field: str) -> None:
    """Check that a text is the URL of functions.

    Raises:
        Refused: it is not; the text names the field.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        good = good and parts.username is None and " " not in parts.netloc
        good = good and url.isprintable() and len(url) <= _LONGEST
    except ValueError:
        good = False
    if not good:
        raise Refused(f"{field}: {url[:200]!r} is not a URL such as https://host/api/inngest")


def _sdk(message: _Message) -> str:
    language = f"{message.sdk_language}:v{message.sdk_version}" if message.sdk_language else ""
    return f"inngest-{message.sdk or language}" if message.sdk or language else ""


def _decode(body: bytes, shape: Any, field: str) -> Any:
    try:
        body.decode()
        return msgspec.json.decode(body, type=shape)
    except UnicodeDecodeError:
        raise Refused(f"{field}: not UTF-8") from None
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise Refused(f"{field}{where.removesuffix('`')}: {what}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"{field}: invalid JSON: {error}") from None
