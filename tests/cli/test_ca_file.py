"""`--ca-file`, and how a failure of TLS is named."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from stephttp.cli.ca_file import checked
from stephttp.cli.doctor_checks import Check, check_all
from stephttp.cli.engine_options import StartOptions
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote
from stephttp.cli.start_command import resolve
from stephttp.cli.target import Target
from stephttp.engine import Settings, VirtualClock
from stephttp.engine.engine import Engine
from stephttp.errors import ConfigurationError
from tests.engine.test_exchange import certificate


class Answers(BaseHTTPRequestHandler):
    """A proxy with TLS in front of an engine, as far as `doctor` looks."""

    def do_GET(self) -> None:
        body = b'{"data": [], "metadata": {}}'
        self.send_response(200)
        self.send_header("x-inngest-server-kind", "cloud")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def port(cert: Path) -> Generator[int]:
    """Where a server with a certificate of our own for `localhost` listens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *args: None  # type: ignore[method-assign]
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def checks(url: str, ca_file: Path | None, apps: list[str]) -> dict[str, Check]:
    target = Target.find(url, ca_file=ca_file, environ={})
    with Remote(target) as engine:
        return {check.name: check for check in check_all(engine, apps)}


def test_doctor_names_a_failure_of_tls(port: int, cert: Path) -> None:
    url, other = f"https://localhost:{port}", f"https://127.0.0.1:{port}"
    for found in (checks(url, None, [url]), checks(other, cert, [other])):
        for name in ("engine", f"here to {url if f'here to {url}' in found else other}"):
            check = found[name]
            assert check.status == "error"
            assert check.detail.startswith("no secure connection (TLS)")
            assert "certificate verify failed" in check.detail
            assert check.fix is not None
            assert "--ca-file, SSL_CERT_FILE or SSL_CERT_DIR" in check.fix


def test_what_is_trusted_works(port: int, cert: Path) -> None:
    url = f"https://localhost:{port}"
    found = checks(url, cert, [url])
    assert (found["engine"].status, found[f"here to {url}"].status) == ("ok", "ok")


def test_a_server_without_tls_is_no_secure_connection() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = checks(f"https://127.0.0.1:{server.server_address[1]}", None, [])
        server.shutdown()
    assert "no secure connection (TLS)" in found["engine"].detail


def test_commands_name_a_failure_of_tls(port: int) -> None:
    target = Target.find(f"https://localhost:{port}", environ={})
    with Remote(target) as engine, pytest.raises(RemoteError) as caught:
        engine.data("GET", "/v1/runs")
    assert caught.value.code is Exit.UNREACHABLE
    assert str(caught.value).startswith("no secure connection (TLS) to https://localhost")


async def test_the_engine_trusts_what_it_is_given(port: int, cert: Path) -> None:
    origin = f"https://localhost:{port}"
    for ca_file, verdict in ((cert, "answers"), (None, "tls")):
        settings = Settings(db_path=":memory:", ca_file=checked(ca_file))
        engine = Engine(settings, clock=VirtualClock())
        await engine.start()
        try:
            finding = await engine.probe(origin)
        finally:
            await engine.stop()
        assert finding.verdict.value == verdict, finding
        if ca_file is None:
            assert "no secure connection (TLS)" in (finding.detail or "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "--ca-file: cannot read '.*ca.pem': No such file"),
        (b"", "--ca-file: '.*ca.pem' does not hold certificates in PEM"),
        (b"text", "--ca-file: '.*ca.pem' does not hold certificates in PEM"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_start(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    environ = {"INNGEST_SIGNING_KEY": "ab" * 16, "INNGEST_EVENT_KEY": "an-event-key"}
    with pytest.raises(ConfigurationError, match=reason):
        resolve(StartOptions(db=tmp_path / "db", ca_file=path), environ)
    with pytest.raises(RemoteError, match=reason) as caught:
        Target.find(None, ca_file=path, environ={})
    assert caught.value.code is Exit.USAGE
