"""The names that users may rely on, and what `import stephttp` costs."""

import os
import subprocess
import sys

import pytest

import stephttp
from stephttp import step, sync

NAMES = [
    "AIAdapter",
    "Checkpointing",
    "Concurrency",
    "Throttle",
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
    "Converter",
    "CurrentRun",
    "DEFAULT_RESTORE_HEADERS",
    "DivergenceError",
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
    "ResultTimeoutError",
    "RunCancelledError",
    "RunEvent",
    "RunFailedError",
    "RunInfo",
    "RunNotFoundError",
    "RunResult",
    "SetupOpts",
    "SignalNotAwaitedError",
    "WaitingRun",
    "StepError",
    "StepErrorGroup",
    "StepResultError",
    "StepTimeoutError",
    "StephttpError",
    "Suspended",
    "Timing",
    "UncommittedStepError",
    "UsageError",
    "Userland",
    "WSGIMiddleware",
    "__version__",
    "configure",
    "current_run",
    "idempotency_key",
    "logger",
    "setup",
    "step",
    "stream",
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
    "sqlalchemy",
    "opentelemetry",
    "stephttp.integrations",
    "stephttp.engine",
    "stephttp.cli",
]


def test_the_public_names_are_these() -> None:
    assert sorted(stephttp.__all__) == sorted(NAMES)
    assert sorted(sync.__all__) == ["APIClient", "step", "stream"]
    assert all(hasattr(stephttp, name) for name in NAMES)


def test_the_stream_tools_are_these_async_and_blocking() -> None:
    assert set(stephttp.stream.__all__) == {"Pipe", "pipe", "push"}
    assert set(sync.stream.__all__) == {"pipe", "push"}


def test_the_step_tools_are_these_async_and_blocking() -> None:
    tools = {
        "ai", "fetch", "first", "invoke", "invoke_by_id", "options", "parallel", "race", "run",
        "send_event", "sleep", "sleep_until", "wait_for_event", "wait_for_signal",
    }  # fmt: skip
    assert set(step.__all__) == tools
    assert set(sync.step.__all__) == tools
    assert all(
        callable(getattr(module, name)) for module in (step, sync.step) for name in tools - {"ai"}
    )


def test_the_names_that_are_imported_later_are_seen_all_the_same() -> None:
    seen = run(
        "import stephttp; assert 'WSGIMiddleware' in dir(stephttp); from stephttp import *; "
        "print(WSGIMiddleware.__name__, ASGIMiddleware.__name__, APIClient.__name__)"
    )
    assert seen.split() == ["WSGIMiddleware", "ASGIMiddleware", "APIClient"]
    with pytest.raises(AttributeError, match="no attribute 'WSGIMidleware'"):
        _ = stephttp.WSGIMidleware  # type: ignore[attr-defined]


def test_importing_it_loads_no_framework_no_engine_and_no_http_client() -> None:
    loaded = modules("import stephttp, stephttp.sync")
    assert "stephttp.provider" in loaded
    for name in NOT_LOADED:
        assert not [m for m in loaded if m == name or m.startswith(name + ".")], name


def test_importing_it_loads_few_modules_and_no_asyncio() -> None:
    loaded = modules("import stephttp") - modules("")
    assert not {"asyncio", "ssl", "http", "json"} & loaded
    assert not [name for name in loaded if name.startswith("stephttp._adapters.")]
    # A budget: what takes more on purpose raises it. Python 3.14 has three more of its own.
    assert len([name for name in loaded if name.startswith("stephttp")]) <= 108
    assert len(loaded) <= (207 if sys.version_info >= (3, 14) else 204)


def test_a_wsgi_application_needs_no_asyncio() -> None:
    made = modules("import stephttp; stephttp.setup('a.example').wsgi(lambda e, s: [])")
    assert "stephttp._adapters.wsgi.first_call" in made
    assert not [name for name in made if name.startswith(("asyncio", "stephttp._asgi"))]


def modules(code: str) -> set[str]:
    """What is loaded at the end of a program."""
    return set(run(f"{code}\nimport sys; print(*sys.modules)").split())


def run(code: str) -> str:
    # A measurement of coverage would load things of its own.
    environ = {name: value for name, value in os.environ.items() if "COV" not in name}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


SERVED = """
import asyncio, os, sys
import stephttp
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    head = b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\n"
    writer.write(head + b"{}")
    await writer.drain()
    writer.close()

async def handler(request):
    return JSONResponse(await stephttp.step.run("one", lambda: 1))

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    os.environ["INNGEST_DEV"] = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    provider = stephttp.setup("a.example", background=BACKGROUND)
    wrapped = provider.asgi(Starlette(routes=[Route("/", handler)]))
    events, started = asyncio.Queue(), asyncio.Event()

    async def send(message):
        started.set()

    lifespan = asyncio.create_task(wrapped({"type": "lifespan"}, events.get, send))
    await events.put({"type": "lifespan.startup"})
    await started.wait()
    loaded = set(sys.modules)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await wrapped(scope, None, send)
    assert await provider.wait(60), "the run is delivered"
    later = [name for name in sys.modules if name not in loaded]
    of_client = ("httpx2", "httpcore2", "ssl", "stephttp._client")
    print(*[name for name in later if name.startswith(of_client)] or ["none"])
    await events.put({"type": "lifespan.shutdown"})
    await lifespan
    server.close()

asyncio.run(main())
"""


def test_a_served_application_has_its_http_client_before_the_first_request() -> None:
    """That takes up to 0.1 s, for which all requests of that moment would wait."""
    assert run(SERVED.replace("BACKGROUND", "True")).split() == ["none"]


def test_a_host_that_stops_between_requests_prepares_nothing() -> None:
    """It may start for each request, and not each needs the client."""
    assert "httpx2" in run(SERVED.replace("BACKGROUND", "False")).split()
