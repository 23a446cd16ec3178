"""The checks of `stephttp doctor --inngest`: whether endpoints can move to an Inngest server.

All of them are made from here, by requests that store nothing. Points that only its operator can
see, such as where it keeps its runs, are named and not checked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2

from stephttp._wire.ids import random_ulid
from stephttp._wire.signatures import hash_key, sign
from stephttp.cli.doctor_checks import (
    CANNOT_ASK_FIX,
    ERROR,
    OK,
    SKIPPED,
    WARNING,
    Check,
    clock_of,
    event_key_of,
)
from stephttp.cli.remote import Remote
from stephttp.cli.secure_connections import TRUST, direct_client, is_of_tls

_PAGE = "docs/inngest-server.md"
_LARGEST = 4 * 1024 * 1024
"""Bytes that the server reads of one request (docs/protocol.md 10)."""
_SECONDS = 10.0
_ACCEPTED, _REFUSED = 410, 401
"""What an Inngest server answers to those who ask for a run that it does not have."""


def check_inngest(server: Remote, apps: Sequence[str]) -> Iterator[Check]:
    """Run all checks that make sense after the results of earlier ones.

    Args:
        server: the Inngest server.
        apps: origins of applications that are to move.
    """
    target = server.target
    began = time.time()
    try:
        health = server.http.get("/health")
    except httpx2.HTTPError as error:
        yield _no_server(target.url, error)
        return
    ended = time.time()
    yield (found := _server(target.url, health))
    if found.status == ERROR:
        return
    yield _address(target.url)
    yield clock_of(health, began, ended)
    try:
        key = yield from _abilities(server, health)
    except httpx2.HTTPError as error:
        yield _no_server(target.url, error)
        return
    for app in apps:
        yield _application(app, key, target.ca_file)
    yield Check(
        "durability", SKIPPED,
        "whether its Redis is durable and its records are in Postgres cannot be seen from here",
        f"see the checklist in {_PAGE}",
    )  # fmt: skip


def _abilities(server: Remote, health: httpx2.Response) -> Generator[Check, None, str]:
    """Check what the server does for requests, and return the key that it accepts, if any."""
    keys = server.target.signing_keys
    dev = health.headers.get("x-inngest-server-kind") == "dev"
    if dev:
        yield Check("signing key", OK, "a server for development does not look at it")
        accepted: Sequence[str] = keys[:1]
    else:
        accepted = yield from _signing_keys(server, keys)
    key = accepted[0] if accepted else ""
    yield event_key_of(server)
    yield _results(server)
    if dev or accepted:
        yield _large_requests(server, key)
    else:
        yield Check("large requests", SKIPPED, "the server takes none without its signing key")
    return key


def _no_server(url: str, error: httpx2.HTTPError) -> Check:
    reason = str(error) or type(error).__name__
    if is_of_tls(error):
        detail = f"no secure connection (TLS) to {url}: {reason}"
        return Check("server", ERROR, detail, f"check the address and the certificate; {TRUST}")
    return Check("server", ERROR, f"nothing answers at {url}: {reason}", "check the address")


def _server(url: str, health: httpx2.Response) -> Check:
    kind = health.headers.get("x-inngest-server-kind")
    if "x-stephttp-engine" in health.headers:
        return Check(
            "server", ERROR, f"{url} is a stephttp engine, and not an Inngest server",
            f"check it with `stephttp doctor --url {url}`",
        )  # fmt: skip
    if not health.is_success or kind is None:
        return Check(
            "server", ERROR,
            f"{url}/health answers {health.status_code}, and does not say that it is Inngest",
            "check the address, and what is between here and the server",
        )  # fmt: skip
    if kind == "dev":
        return Check(
            "server", WARNING,
            f"{url} is an Inngest server for development: it looks at no keys, and forgets its "
            "runs when it is stopped",
            f"use `inngest start` with --redis-uri and --postgres-uri ({_PAGE})",
        )  # fmt: skip
    return Check("server", OK, f"Inngest at {url}, for production")


def _address(url: str) -> Check:
    parts = urlsplit(url)
    if parts.scheme == "https" or _is_loopback((parts.hostname or "").removesuffix(".")):
        return Check("address", OK, "keys and requests are not sent in the clear")
    return Check(
        "address", WARNING, f"{url} is plain HTTP: keys and requests can be read on the way",
        "put a proxy with TLS in front of the server, and name its https address",
    )  # fmt: skip


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # it is another name
        return False


def _unknown_run() -> str:
    """Return the id of a run that no server has."""
    return random_ulid(int(time.time() * 1000), secrets.token_bytes(16))


def _state(server: Remote, key: str) -> int:
    """Ask for the state of a run that does not exist, and return the status of the answer."""
    headers = {"authorization": f"Bearer {hash_key(key)}"} if key else {}
    return server.http.get(f"/v0/runs/{_unknown_run()}/actions", headers=headers).status_code


def _signing_keys(server: Remote, keys: Sequence[str]) -> Generator[Check, None, Sequence[str]]:
    """Try each key once, and return those that the server accepts."""
    without = _state(server, "")
    if without in (200, _ACCEPTED):
        yield Check(
            "keys", ERROR, "the server gives the state of runs without a key",
            "start it with --signing-key, or check what is between here and the server",
        )  # fmt: skip
    elif without != _REFUSED:
        yield _unexpected("keys", without)
    if not keys:
        yield Check(
            "signing key", ERROR, "none is set, and endpoints that wait need one",
            "set INNGEST_SIGNING_KEY, or use --signing-key-file: the hexadecimal key of "
            "`inngest start --signing-key`",
        )  # fmt: skip
    answers = {key: _state(server, key) for key in keys}
    accepted = [key for key, status in answers.items() if status == _ACCEPTED]
    for number, key in enumerate(keys, 1):
        name = "signing key" if number == 1 else f"signing key {number}"
        if key in accepted:
            yield Check(name, OK, "the server accepts it")
        elif answers[key] != _REFUSED:
            yield _unexpected(name, answers[key])
        else:
            yield Check(
                name, WARNING if accepted else ERROR, "the server does not accept it",
                "use the key of `inngest start --signing-key`; the server takes one at a time",
            )  # fmt: skip
    return accepted


def _unexpected(name: str, status: int) -> Check:
    return Check(
        name, ERROR,
        f"a run that does not exist is answered {status}; an Inngest server answers {_ACCEPTED}, "
        f"or {_REFUSED} without its key",
        "check what is between here and the server",
    )  # fmt: skip


def _results(server: Remote) -> Check:
    """Ask for a result that there is not. A server without its user interface has none at all."""
    answer = server.http.get(f"/v1/http/runs/{_unknown_run()}/output", params={"token": "none"})
    if answer.status_code == 401:
        return Check("results", OK, "the server has addresses for results")
    if answer.status_code == 500 and not answer.content:
        return Check(
            "results", ERROR, "every address of a result answers an empty 500",
            "start the server without --no-ui: with it, no caller gets a result",
        )  # fmt: skip
    return Check(
        "results", WARNING,
        f"a result that does not exist is answered {answer.status_code}, where 401 is expected",
        "check what is between here and the server: callers load results from there",
    )  # fmt: skip


def _large_requests(server: Remote, key: str) -> Check:
    """Send almost as much as the server reads, for a run that it does not know and ignores."""
    run_id = _unknown_run()
    op = {"op": "StepRun", "id": "0" * 40, "data": "x" * (_LARGEST - 65_536)}
    headers = {"authorization": f"Bearer {hash_key(key)}"} if key else {}
    body = {"run_id": run_id, "steps": [op], "ts": 0}
    try:
        answer = server.http.post(f"/v1/http/runs/{run_id}/steps", json=body, headers=headers)
    except httpx2.HTTPError as error:
        detail = f"a request of 4 MiB gets no answer: {error}"
        return Check("large requests", ERROR, detail, "check the limits of the proxy in front")
    if answer.is_success:
        return Check("large requests", OK, "a request of 4 MiB reaches the server")
    return Check(
        "large requests", ERROR if answer.status_code == 413 else WARNING,
        f"a request of 4 MiB is answered {answer.status_code}",
        "let the proxy in front of the server pass on bodies of 4 MiB (nginx: "
        "client_max_body_size 5m)",
    )  # fmt: skip


_APP_ANSWERS: dict[int, tuple[str, str, str | None]] = {
    206: (OK, "it knows the key, and reaches the server", None),
    401: (
        ERROR, "it does not accept a call that is signed with this key",
        "give it the key as INNGEST_SIGNING_KEY, unset INNGEST_DEV, and start it again",
    ),
    404: (
        ERROR, "the server that it asks does not know the run: it still asks a stephttp engine",
        "set its INNGEST_BASE_URL to the address of the Inngest server, and start it again",
    ),
    503: (
        ERROR, "it cannot load runs from its server",
        CANNOT_ASK_FIX,
    ),
}  # fmt: skip


def _application(app: str, key: str, ca_file: str) -> Check:
    """Call an application as the server does, for a run that does not exist."""
    name = f"application {app}"
    headers = {
        "user-agent": "Inngest",
        "content-type": "application/json",
        "x-run-id": _unknown_run(),
        "x-inngest-generation-id": "1",
        "x-inngest-job-id": "stephttp-doctor",
        "x-inngest-req-version": "1",
        "x-inngest-signature": sign(key, b"", int(time.time())) if key else "",
    }
    try:
        with direct_client(ca_file, timeout=_SECONDS) as client:
            answer = client.get(app, headers=headers)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        reason = str(error) or type(error).__name__
        if is_of_tls(error):
            return Check(name, ERROR, f"no secure connection (TLS): {reason}", TRUST)
        return Check(name, ERROR, f"no answer: {reason}", "start the application")
    if not answer.headers.get("x-inngest-sdk", "").startswith("stephttp-"):
        return Check(
            name, ERROR, "it answers without stephttp",
            "check the address: it has to be one behind the stephttp middleware",
        )  # fmt: skip
    if b"x-stephttp-signature" in answer.content:
        return Check(
            name, ERROR, "it still asks a stephttp engine",
            "set its INNGEST_BASE_URL to the address of the Inngest server, and start it again",
        )  # fmt: skip
    unknown = (WARNING, f"it answers {answer.status_code}", "its log says why")
    status, detail, fix = _APP_ANSWERS.get(answer.status_code, unknown)
    return Check(name, status, detail, fix)
