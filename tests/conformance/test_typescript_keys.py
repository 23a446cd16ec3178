"""The real TypeScript SDK against `stephttp start`: signed and checked on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import signed_peer

_KEY = "signkey-prod-" + "6b2f9d0c" * 8
_OTHER = "signkey-prod-" + "00ff00ff" * 8


@pytest.mark.parametrize(
    "keys",
    [
        {"INNGEST_SIGNING_KEY": _KEY},
        {"INNGEST_SIGNING_KEY": _OTHER, "INNGEST_SIGNING_KEY_FALLBACK": _KEY},
    ],
    ids=["right key", "fallback key"],
)
def test_runs_go_on_after_a_sleep(
    typescript_app: Path, tmp_path: Path, keys: dict[str, str]
) -> None:
    with signed_peer(typescript_app, tmp_path / "db", _KEY, **keys) as peer:
        assert json.loads(peer.outcome("/sleep").json()) == {"s": "helloworld!"}
        assert json.loads(peer.outcome("/parallel").json()) == [1, 2, None, "after"]
        # The real server signs this body as it is, and the SDK refuses that (J9).
        path = f"{peer.app}/sleep?key={peer.key}"
        for method, body in (
            ("POST", '{ "b":2, "a":1.50, "\\u20ac": 1e21, "big": 12345678901234567890}'),
            ("PUT", ' "a text" '),
            ("PATCH", '{ "b":2, "a":1}'),
        ):
            response = peer.http.request(method, path, content=body)
            assert response.status_code == 302, response.text
            answer = peer.http.get(response.headers["location"])
            assert json.loads(answer.json()) == {"s": "helloworld!"}


def test_an_app_with_a_wrong_key_cannot_begin_a_run(typescript_app: Path, tmp_path: Path) -> None:
    with signed_peer(typescript_app, tmp_path / "db", _KEY, INNGEST_SIGNING_KEY=_OTHER) as peer:
        response = peer.get("/sleep")
        assert response.status_code == 500
        runs = peer.http.get(f"{peer.engine}/v1/runs").json()["data"]
        assert runs == []
