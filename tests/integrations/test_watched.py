"""What OpenTelemetry and Sentry see of a request that waits: one that was answered."""

import json
import subprocess
import sys
from typing import Any

import pytest

DECORATED = [
    "fastapi_async", "fastapi_def", "django_asgi", "django_asgi_async", "flask_def", "django_wsgi",
]  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, Any]]:
    """What they have seen of each application."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.watched"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("app", DECORATED)
def test_three_calls_are_three_requests_without_an_error(
    app: str, seen: dict[str, dict[str, Any]]
) -> None:
    """The first call, another request after it in the same thread, and the call of the engine."""
    assert seen[app] == {
        "statuses": [303, 200, 200],
        "sentry_errors": [],
        "sentry_statuses": ["ok"] * 3,
        "sentry_traces": 3,
        "spans": 3,
        "traces": 3,
        "children": 0,
        "failed": 0,
    }


@pytest.mark.parametrize("app", ["flask_def", "django_wsgi"])
def test_without_the_decorator_the_next_request_has_a_trace_of_its_own(
    app: str, seen: dict[str, dict[str, Any]]
) -> None:
    found = seen[f"{app} undecorated"]
    assert found["statuses"] == [303, 200, 200]
    assert found["traces"] == found["spans"]
    assert found["sentry_traces"] == len(found["sentry_statuses"]) == 3
    assert found["children"] == 0
