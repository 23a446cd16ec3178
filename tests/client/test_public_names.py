"""The names that users may rely on, and what `import stephttp` costs."""

import os
import subprocess
import sys

import stephttp
from stephttp import step, sync

NAMES = [
    "AIAdapter",
    "Checkpointing",
    "APIClient",
    "Event",
    "FetchResponse",
    "ModelAdapter",
    "RetryAfterError",
    "Signal",
    "APIConnectionError",
    "APIError",
    "APIResult",
    "APIStatusError",
    "APITimeoutError",
    "ASGIMiddleware",
    "AsyncRequest",
    "AsyncResponse",
    "AsyncResponseCustom",
    "AsyncResponseRedirect",
    "AsyncResponseToken",
    "CannotWaitError",
    "CheckpointNewRunRequest",
    "CheckpointRun",
    "ConfigurationError",
    "DEFAULT_RESTORE_HEADERS",
    "ErrorInfo",
    "FnOpts",
    "Middleware",
    "NestedStepError",
    "NewAPIRunData",
    "NonRetriableError",
    "Op",
    "OpCode",
    "OptionalSetupOpts",
    "OutsideRunError",
    "Provider",
    "ReplayFilter",
    "ReplayLogger",
    "Request",
    "Response",
    "RunEvent",
    "SetupOpts",
    "StepError",
    "StepResultError",
    "StephttpError",
    "Suspended",
    "Timing",
    "UsageError",
    "Userland",
    "WSGIMiddleware",
    "__version__",
    "configure",
    "logger",
    "setup",
    "step",
    "update_omit_response_body",
]

NOT_LOADED = [
    "starlette",
    "fastapi",
    "litestar",
    "quart",
    "flask",
    "werkzeug",
    "django",
    "falcon",
    "uvicorn",
    "pydantic",
    "httpx2",
    "httpcore2",
    "anyio",
    "cryptography",
    "jwt",
    "typer",
    "click",
    "sqlite3",
    "jinja2",
    "inngest",
    "opentelemetry",
    "stephttp.integrations",
    "stephttp.engine",
    "stephttp.cli",
]


def test_the_public_names_are_these() -> None:
    assert sorted(stephttp.__all__) == sorted(NAMES)
    assert sorted(sync.__all__) == ["APIClient", "step"]
    assert all(hasattr(stephttp, name) for name in NAMES)


def test_the_step_tools_are_these_async_and_blocking() -> None:
    tools = {
        "ai", "fetch", "invoke", "invoke_by_id", "options", "parallel", "run", "send_event",
        "sleep", "sleep_until", "wait_for_event", "wait_for_signal",
    }  # fmt: skip
    assert set(step.__all__) == tools
    assert {name for name in vars(sync.step) if not name.startswith("_")} == tools


def test_importing_it_loads_no_framework_no_engine_and_no_http_client() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import stephttp, stephttp.sync"],
        # A measurement of coverage would load things of its own.
        env={name: value for name, value in os.environ.items() if "COV" not in name},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "stephttp.provider" in loaded
    for name in NOT_LOADED:
        assert not [m for m in loaded if m == name or m.startswith(name + ".")], name
