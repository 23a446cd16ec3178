"""Requests of commands to the API of an engine, and what its answers mean for the exit code."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx2

from stephttp._version import __version__
from stephttp._wire.signatures import hash_key
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.printing import clean
from stephttp.cli.secure_connections import TRUST, direct_client, is_of_tls
from stephttp.cli.target import Target

_PAGE = 100
_SECONDS = 30.0
_QUIET_SECONDS = 60.0
"""How long a stream may be silent; the engine sends comments more often than that."""


class Remote:
    """A client of an engine's API. Use it as a context manager.

    It tries its keys one after the other until the engine accepts one.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._keys = list(target.signing_keys)
        headers = {"user-agent": f"stephttp-cli/{__version__}"}
        self.http = direct_client(
            target.ca_file, base_url=target.url, headers=headers, timeout=_SECONDS
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request with a key that the engine accepts, and return its answer.

        Raises:
            RemoteError: there is no answer, or the engine accepts no key.
        """
        while True:
            request = self.http.build_request(
                method,
                path,
                params=params,
                headers={**(headers or {}), **self._headers()},
                json=body,
            )
            with self._reaching():
                response = self.http.send(request)
            if response.status_code != HTTPStatus.UNAUTHORIZED:
                return response
            self._next_key()

    def json(self, method: str, path: str, *, body: Any = None, params: Any = None) -> Any:
        """Send a request, and return the JSON of its successful answer.

        Raises:
            RemoteError: see `send`; also if the answer is an error, with the engine's message.
        """
        response = self.send(method, path, body=body, params=params)
        if not response.is_success:
            raise RemoteError(explain(response), status=response.status_code)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise RemoteError(f"{self.target.url} does not answer as an engine does") from None

    def data(self, method: str, path: str, *, body: Any = None, params: Any = None) -> Any:
        """Do the same, and return `data` of what the v1 API wraps around it."""
        answer = self.json(method, path, body=body, params=params)
        if not isinstance(answer, dict) or "data" not in answer:
            raise RemoteError(f"{self.target.url} does not answer as an engine does")
        return answer["data"]

    def pages(self, path: str, params: Mapping[str, Any], limit: int) -> list[Any]:
        """Return the first `limit` items of a list that comes in pages.

        Args:
            params: of the query; empty ones are left out.

        Raises:
            RemoteError: see `json`.
        """
        wanted = {name: value for name, value in params.items() if value}
        items: list[Any] = []
        while len(items) < limit:
            size = min(_PAGE, limit - len(items))
            answer = self.json("GET", path, params=wanted | {"limit": size})
            page, cursors = answer["data"], answer["metadata"].get("page")
            items += page
            if cursors is not None:
                # A search may end early: then a short page is not the last.
                cursor = cursors["older"]
            else:
                # The cursor of events is the last event's id, as with Inngest.
                cursor = page[-1]["internal_id"] if len(page) == size else None
            if not cursor:
                break
            wanted["cursor"] = cursor
        return items

    def post_event(self, key: str, body: Any) -> httpx2.Response:
        """Send events with a key that is already quoted for a path.

        Raises:
            RemoteError: there is no answer.
        """
        with self._reaching():
            return self.http.post(f"/e/{key}", json=body)

    @contextmanager
    def stream(self, path: str) -> Generator[Generator[tuple[str, Any]]]:
        """Open a stream of server-sent events; each has a name and data.

        Raises:
            RemoteError: there is no such stream, or the connection broke.
        """
        # Earlier requests have found the key that the engine accepts.
        timeout = httpx2.Timeout(_SECONDS, read=_QUIET_SECONDS)
        with (
            self._reaching(),
            self.http.stream("GET", path, headers=self._headers(), timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
                raise RemoteError(explain(response))
            yield _events(response)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {hash_key(self._keys[0])}"} if self._keys else {}

    def _next_key(self) -> None:
        """Discard the present key.

        Raises:
            RemoteError: there is no other.
        """
        if not self._keys:
            raise RemoteError(
                f"{self.target.url} asks for a signing key: set INNGEST_SIGNING_KEY, or use "
                "--signing-key-file",
                Exit.KEY,
            )
        self._keys = self._keys[1:]
        if not self._keys:
            raise RemoteError(f"{self.target.url}: wrong signing key (401)", Exit.KEY)

    @contextmanager
    def _reaching(self) -> Generator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            where = f"{self.target.url} ({self.target.source})"
            message = f"no engine at {where}: {reason}"
            if is_of_tls(error):
                message = f"no secure connection (TLS) to {where}: {reason}; {TRUST}"
            raise RemoteError(message, Exit.UNREACHABLE) from None


def explain(response: httpx2.Response) -> str:
    """Return the message of an error answer."""
    try:
        body = response.json()
        message = body.get("error") or body.get("message")
    except (ValueError, AttributeError):
        message = None
    return (
        clean(str(message)) if message else f"{response.request.url.path}: {response.status_code}"
    )


def _events(response: httpx2.Response) -> Generator[tuple[str, Any]]:
    name, data = "message", ""
    for line in response.iter_lines():
        field_name, _, value = line.partition(":")
        if field_name == "event":
            name = value.strip()
        elif field_name == "data":
            data += value
        elif not line:
            if data:
                yield name, json.loads(data)
            name, data = "message", ""
