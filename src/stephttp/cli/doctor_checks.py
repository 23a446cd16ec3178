"""The checks of `stephttp doctor`: of engine, clocks, keys, applications; and how to fix things.

The engine may be ours or an Inngest server; checks that only our engine supports are skipped there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx2

from stephttp._version import __version__
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote
from stephttp.cli.secure_connections import TRUST, direct_client, is_of_tls

OK, WARNING, ERROR, SKIPPED = "ok", "warning", "error", "skipped"

_SKEW_WARNING, _SKEW_ERROR = 30, 300
"""Seconds. Signatures older than the second are refused (docs/protocol.md 2.3)."""

_TLS_FIX = f"check the address and the certificate there; {TRUST}"
CANNOT_ASK_FIX = "check its INNGEST_BASE_URL, signing key and network; its log says what is wrong"
_MOST_APPS, _APP_SECONDS = 10, 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of a check; `fix` says what to do about it."""

    name: str
    status: str
    detail: str
    fix: str | None = None


_VERDICTS: dict[str, tuple[str, str, str | None]] = {
    "ok": (OK, "the engine reaches it, it knows the key, and it reaches the engine", None),
    "answers": (OK, "the engine gets an answer from it", None),
    "wrong_key": (
        ERROR,
        "it does not know the key that the engine signs with",
        "give it the engine's first signing key, as INNGEST_SIGNING_KEY or its _FALLBACK",
    ),
    "no_way_back": (
        ERROR,
        "the engine reaches it, but it cannot load runs from the engine",
        CANNOT_ASK_FIX,
    ),
    "not_ours": (
        ERROR,
        "something else answers there",
        "check the `domain` or `serve_origin` of stephttp.setup: the engine calls that address",
    ),
    "unreachable": (
        ERROR,
        "the engine cannot reach it",
        "check that it runs, and that the engine's machine reaches its `domain` or `serve_origin`",
    ),
    "tls": (
        ERROR,
        "the engine gets no secure connection (TLS) to it",
        f"check its certificate and its `domain` or `serve_origin`; for the engine, {TRUST}",
    ),
    "forbidden": (
        ERROR,
        "the engine may not call it",
        "start the engine with --allow-host for it",
    ),
}


def check_all(engine: Remote, apps: Sequence[str]) -> Iterator[Check]:
    """Run all checks that make sense after the results of earlier ones.

    Args:
        apps: URLs of applications to check, in addition to those that the engine knows.
    """
    yield Check("cli", OK, f"stephttp {__version__}")
    target = engine.target
    try:
        began = time.time()
        health = engine.http.get("/health")
        ended = time.time()
    except httpx2.HTTPError as error:
        if is_of_tls(error):
            yield Check(
                "engine",
                ERROR,
                f"no secure connection (TLS) to {target.url} ({target.source}): {_reason(error)}",
                _TLS_FIX,
            )
            yield from _apps_from_here(apps, target.ca_file)
            return
        yield Check(
            "engine",
            ERROR,
            f"nothing answers at {target.url} ({target.source}): {_reason(error)}",
            "start the engine (`stephttp dev`, `stephttp start`), or name its address: --url, "
            "INNGEST_BASE_URL",
        )
        yield from _apps_from_here(apps, target.ca_file)
        return
    version = health.headers.get("x-stephttp-engine")
    kind = health.headers.get("x-inngest-server-kind")
    yield _engine(target.url, health, version, kind)
    yield clock_of(health, began, ended)
    if version is not None:
        yield _version(version)
    accepted = True
    for check in (*_signing_keys(engine, kind), event_key_of(engine)):
        accepted = accepted and not (check.name == "signing key" and check.status == ERROR)
        yield check
    if version is None:
        yield Check("applications", SKIPPED, "only a stephttp engine can be asked to call them")
    elif not accepted:
        yield Check("applications", SKIPPED, "the engine lists none without its signing key")
    else:
        yield from _apps_from_engine(engine, apps)
    yield from _apps_from_here(apps, target.ca_file)


def _engine(url: str, health: httpx2.Response, version: str | None, kind: str | None) -> Check:
    if not health.is_success:
        return Check(
            "engine",
            ERROR,
            f"{url}/health answers {health.status_code}",
            "if this is a proxy, check that the engine behind it runs; else the engine's log "
            "says what is wrong",
        )
    if version is None and kind is None:
        return Check(
            "engine",
            WARNING,
            f"{url} answers, but says neither that it is stephttp nor that it is Inngest",
            "check the address",
        )
    mode = "for development: it checks no signing keys" if kind == "dev" else "for production"
    return Check("engine", OK, f"{'stephttp' if version else 'Inngest'} at {url}, {mode}")


def clock_of(health: httpx2.Response, began: float, ended: float) -> Check:
    """Compare the clock of a server with the one here, by an answer of its."""
    try:
        date = parsedate_to_datetime(health.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return Check("clock", SKIPPED, "the engine does not send its time")
    # The engine's clock may be anywhere in that second, and was read at any time of the request.
    skew = max(date - ended, began - (date + 1), 0.0)
    if skew < _SKEW_WARNING:
        return Check("clock", OK, "the engine's and this machine's agree")
    status = ERROR if skew >= _SKEW_ERROR else WARNING
    which = "ahead of" if date > ended else "behind"
    return Check(
        "clock",
        status,
        f"the engine's is {skew:.0f} s {which} this machine's; signatures are refused from "
        f"{_SKEW_ERROR} s on",
        "let both machines set their clocks by NTP",
    )


def _version(version: str) -> Check:
    if version == __version__:
        return Check("version", OK, f"the engine is stephttp {version}, too")
    return Check(
        "version",
        WARNING,
        f"the engine is stephttp {version}, this command {__version__}",
        "install the same version of both",
    )


def _signing_keys(engine: Remote, kind: str | None) -> Iterator[Check]:
    target = engine.target
    if not target.signing_keys:
        try:
            engine.send("GET", "/v1/runs", params={"limit": 1})
        except RemoteError as error:
            fix = "set INNGEST_SIGNING_KEY, or use --signing-key-file; the engine has the same"
            yield Check("signing key", ERROR, str(error), fix)
        else:
            yield Check("signing key", OK, "none is configured, and the engine asks for none")
        return
    if kind == "dev":
        yield Check(
            "signing key", OK, "there is one, but an engine for development does not look at it"
        )
        return
    results = [_accepts(engine, key) for key in target.signing_keys]
    for number, accepted in enumerate(results, 1):
        name = "signing key" if number == 1 else f"signing key {number}"
        if accepted:
            yield Check(name, OK, "the engine accepts it")
        elif any(results):
            # One is enough; this is normal during a rotation.
            yield Check(
                name,
                WARNING,
                "the engine does not accept it, but accepts another one",
                "finish the rotation of keys (docs/operations.md), or remove it",
            )
        else:
            yield Check(
                name,
                ERROR,
                "the engine does not accept it",
                "use a key that the engine was started with; the log of the engine has "
                "request.refused for this",
            )


def _accepts(engine: Remote, key: str) -> bool:
    with Remote(replace(engine.target, signing_keys=(key,), event_keys=())) as one:
        try:
            one.send("GET", "/v1/runs", params={"limit": 1})
        except RemoteError as error:
            if error.code is Exit.KEY:
                return False
            raise
        return True


def event_key_of(engine: Remote) -> Check:
    """Try the first event key."""
    keys = engine.target.event_keys
    if not keys:
        return Check("event key", SKIPPED, "none is set; only senders of events need one")
    # The engine checks the key of an empty list, too, and stores nothing.
    response = engine.post_event(quote(keys[0], safe=""), [])
    if response.is_success:
        return Check("event key", OK, "the engine accepts it")
    return Check(
        "event key",
        ERROR,
        f"the engine does not accept it ({response.status_code})",
        "use an event key that the engine was started with (INNGEST_EVENT_KEY)",
    )


def _apps_from_engine(engine: Remote, apps: Sequence[str]) -> Iterator[Check]:
    known: dict[str, dict[str, Any] | None] = {_origin(app): None for app in apps}
    endpoints = engine.data("GET", "/v1/stephttp/endpoints")
    for endpoint in sorted(endpoints, key=lambda one: one["seen_at"], reverse=True):
        origin = endpoint["origin"].rstrip("/")
        if known.get(origin) is None and (origin in known or len(known) < _MOST_APPS):
            known[origin] = endpoint
    if not known:
        yield Check(
            "applications",
            WARNING,
            "the engine does not know any",
            "send a request with a step to your application, or name it with --app",
        )
    for origin, endpoint in known.items():
        try:
            found = engine.data("POST", "/v1/stephttp/probe", body={"origin": origin})
        except RemoteError as error:
            yield Check(
                f"engine to {origin}", ERROR, str(error), "name an origin: scheme, host, port"
            )
            continue
        status, detail, fix = _VERDICTS[found["verdict"]]
        sdk = f" ({endpoint['sdk']})" if endpoint and endpoint["sdk"] else ""
        more = f": {found['detail']}" if found["detail"] else ""
        yield Check(f"engine to {origin}", status, f"{detail}{sdk}{more}", fix)


def _origin(url: str) -> str:
    """Return the origin of a URL: people may name what `stephttp dev --app` gets, with a path."""
    return found[0] if (found := re.match(r"\w+://[^/?#]+", url)) else url


def _apps_from_here(apps: Sequence[str], ca_file: str) -> Iterator[Check]:
    for app in apps:
        name = f"here to {app}"
        try:
            with direct_client(ca_file, timeout=_APP_SECONDS) as client:
                response = client.get(app)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            if is_of_tls(error):
                detail = f"no secure connection (TLS): {_reason(error)}"
                yield Check(name, ERROR, detail, _TLS_FIX)
            else:
                yield Check(name, ERROR, f"no answer: {_reason(error)}", "start the application")
        else:
            yield Check(name, OK, f"it answers ({response.status_code})")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
