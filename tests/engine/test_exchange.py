"""What endpoints may send, and what is made of it."""

from __future__ import annotations

import asyncio
import gzip
import os
import ssl
import subprocess
import sys
import zlib
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stephttp.engine.outbound import client as client_module
from stephttp.engine.outbound.connection import (
    ConnectError,
    DecodingError,
    ExchangeError,
    ReadError,
    RemoteProtocolError,
    TooLarge,
    decoded,
)
from stephttp.engine.rules.answers import HTTPResponse

from .support import until
from .test_connections import LIMIT, OK, Peer, peers

# Without the time at which it was made: it is part of a test's name.
ZIPPED = gzip.compress(b"plain", mtime=0)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def asked(
    answer: bytes, method: str = "GET", *, close: bool = False
) -> tuple[HTTPResponse, int]:
    """The answer to the second of two requests, and how many connections they took."""
    async with peers(Peer(answer, close=close)) as (peer, asker):
        await asker.ask(method)
        return await asker.ask(method), len(peer.connections)


@pytest.mark.parametrize(
    ("answer", "close", "status", "body", "connections"),
    [
        (OK, False, 200, b"ok", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, 204, b"", 1),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", False, 304, b"", 1),
        (CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", False, 200, b"ok", 1),
        (CHUNKED + b"2\r\nok\r\n0\r\nx-late: 1\r\n\r\n", False, 200, b"ok", 1),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", True, 200,
         b"ok", 2),
        # Without a length it ends with the connection.
        (b"HTTP/1.1 200 OK\r\n\r\nok", True, 200, b"ok", 2),
        (b"HTTP/1.0 200 OK\r\n\r\nok", True, 200, b"ok", 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", True, 200, b"ok", 2),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", False, 200,
         b"ok", 1),
        # What comes before the answer is not the answer.
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, False, 200, b"ok", 1),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK, False, 200, b"ok", 1),
        # No reason, and a status that nobody knows.
        (b"HTTP/1.1 599 \r\ncontent-length: 2\r\n\r\nok", False, 599, b"ok", 1),
    ],
)  # fmt: skip
async def test_answers(
    answer: bytes, close: bool, status: int, body: bytes, connections: int
) -> None:
    got, used = await asked(answer, close=close)
    assert (got.status, got.body, used) == (status, body, connections)
    assert not {"link", "x-late"} & {name for name, _ in got.headers}


async def test_an_answer_to_head_has_no_body() -> None:
    got, connections = await asked(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", "HEAD")
    assert (got.status, got.body, got.header("content-length")) == (200, b"", "99")
    assert connections == 2


@pytest.mark.parametrize("size", [1, 7])
async def test_an_answer_may_come_in_any_portions(size: int) -> None:
    class Slow(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            whole = b"HTTP/1.1 100 \r\n\r\n" + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
            for at in range(0, len(whole), size):
                writer.write(whole[at : at + size])
                await asyncio.sleep(0)
            writer.close()

    async with peers(Slow()) as (_, asker):
        assert (await asker.ask()).body == b"abc"


async def test_headers_keep_their_order_and_may_repeat() -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nX-Name: no\r\n"
        b"Set-Cookie: b=2\r\nx-utf8: \xc3\xa9\r\nx-latin: \xe9\r\nx-empty:\r\n\r\n"
    )
    got, _ = await asked(raw)
    assert got.headers == [
        ("content-length", "0"),
        ("set-cookie", "a=1"),
        ("x-name", "no"),
        ("set-cookie", "b=2"),
        ("x-utf8", "é"),
        ("x-latin", "é"),
        ("x-empty", ""),
    ]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (b"no HTTP\r\n\r\n", RemoteProtocolError, "not an HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n", RemoteProtocolError, "not an HTTP answer"),
        (b"\x15\x03\x01\x00\x02\x02", RemoteProtocolError, "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", RemoteProtocolError, "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", RemoteProtocolError, "not an HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
         RemoteProtocolError, "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
         RemoteProtocolError, "Transfer-Encoding: 'gzip, chunked'"),
        (CHUNKED + b"z\r\n", RemoteProtocolError, "not an HTTP answer"),
        (b"HTTP/1.1 101 \r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", RemoteProtocolError,
         "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000, RemoteProtocolError, "head is too large"),
        (b"HTTP/1.1 100 \r\n\r\n" * 20_000, RemoteProtocolError, "head is too large"),
        (CHUNKED + b"0\r\nx: " + b"x" * 300_000, RemoteProtocolError, "head is too large"),
        (OK.replace(b"th: 2", b"th: 1001") + b"x" * LIMIT, TooLarge, "larger than 1000 bytes"),
        (CHUNKED + b"1f4\r\n%b\r\n" % (b"x" * 500) * 3, TooLarge, "larger than 1000 bytes"),
    ],
)  # fmt: skip
async def test_answers_that_are_none(
    answer: bytes, kind: type[ExchangeError], message: str
) -> None:
    async with peers(Peer(answer)) as (peer, asker):
        with pytest.raises(kind, match=message):
            await asker.ask()
        # The connection is closed by us.
        await until(peer.connections[0].transport.is_closing)


@pytest.mark.parametrize("length", [b"content-length: 9", b"transfer-encoding: chunked"])
async def test_an_answer_that_breaks_off_is_none(length: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n1\r\nx"
    async with peers(Peer(answer, close=True)) as (_, asker):
        with pytest.raises(RemoteProtocolError, match="closed amid the answer"):
            await asker.ask()


async def test_a_connection_that_is_reset_is_not_an_end() -> None:
    class Resetting(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            await self.go_on.wait()
            sock = writer.get_extra_info("socket")
            sock.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER: a reset
            writer.transport.abort()

    peer = Resetting()
    peer.go_on.clear()
    async with peers(peer) as (_, asker):
        call = asyncio.create_task(asker.ask())
        await until(lambda: peer.connections)
        peer.go_on.set()
        with pytest.raises(ReadError):
            await call


async def test_a_large_head_is_taken() -> None:
    got, _ = await asked(OK.replace(b"\r\n\r\n", b"\r\nx: " + b"x" * 90_000 + b"\r\n\r\n"))
    assert len(got.header("x")) == 90_000


async def test_the_request_as_it_is_sent() -> None:
    async with peers() as (peer, asker):
        await asker.ask("POST", "/a%20b//c?x=%2F&y=[]", headers={"x-a": "b"}, body=b"123")
        await asker.ask("POST", "/")
        await asker.ask("DELETE", "//evil.test/x")
        host = asker.origin[7:]
    first, second, third = (head.decode() for head in peer.seen)
    assert first == (
        f"POST /a%20b//c?x=%2F&y=[] HTTP/1.1\r\nhost: {host}\r\nx-a: b\r\ncontent-length: 3\r\n\r\n"
    )
    # The body of the first one comes between them.
    assert second == f"123POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n"
    assert third == f"DELETE //evil.test/x HTTP/1.1\r\nhost: {host}\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "more"),
    [
        ("GET /x", "/", {}),
        ("", "/", {}),
        ("GET", "/ HTTP/1.1\r\nx: y", {}),
        ("GET", "/é", {}),
        ("GET", "/", {"headers": {"x": "a\r\ny: b"}}),
        ("GET", "/", {"headers": {"x": "a\0"}}),
        ("GET", "/", {"headers": {"x": "😀"}}),
    ],
)
async def test_nothing_can_be_smuggled_into_a_request(
    method: str, target: str, more: dict[str, Any]
) -> None:
    async with peers() as (peer, asker):
        with pytest.raises(ValueError, match=r"."):
            await asker.ask(method, target, **more)
        assert not peer.connections


@pytest.mark.parametrize(
    ("origin", "host", "port", "tls", "authority"),
    [
        ("http://app.test", "app.test", 80, False, "app.test"),
        ("HTTPS://App.test/", "app.test", 443, True, "app.test"),
        ("http://app.test:80", "app.test", 80, False, "app.test"),
        ("https://app.test:80", "app.test", 80, True, "app.test:80"),
        ("http://[::1]:8000", "::1", 8000, False, "[::1]:8000"),
        ("http://bücher.example", "xn--bcher-kva.example", 80, False, "xn--bcher-kva.example"),
    ],
)
def test_origins(origin: str, host: str, port: int, tls: bool, authority: str) -> None:
    assert client_module.place_of(origin) == (host, port, tls, authority)


@pytest.mark.parametrize(
    "origin",
    ["", "app.test", "ftp://app.test", "http://", "http://a:x", "http://a\x01", "http://ä\x01"],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        client_module.place_of(origin)


def encoded(coding: str, body: bytes) -> HTTPResponse:
    length = ("content-length", str(len(body)))
    return HTTPResponse(200, [("a", "b"), ("content-encoding", coding), length], body)


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", ZIPPED), ("GZIP ", ZIPPED), ("deflate", zlib.compress(b"plain"))],
)
def test_bodies_are_decoded(coding: str, body: bytes) -> None:
    assert decoded(encoded(coding, body), LIMIT) == HTTPResponse(200, [("a", "b")], b"plain")


def test_what_we_cannot_decode_is_left_to_the_reader() -> None:
    for coding in ("br", "identity"):
        assert decoded(encoded(coding, b"body"), LIMIT) == encoded(coding, b"body")


def test_an_encoded_body_may_be_empty() -> None:
    assert decoded(encoded("gzip", b""), LIMIT).body == b""


@pytest.mark.parametrize("body", [b"not gzip", ZIPPED[:-3]])
def test_bodies_that_cannot_be_decoded(body: bytes) -> None:
    with pytest.raises(DecodingError):
        decoded(encoded("gzip", body), LIMIT)


def test_a_body_that_grows_out_of_hand_is_cut_off() -> None:
    with pytest.raises(TooLarge):
        decoded(encoded("gzip", gzip.compress(bytes(10**7))), LIMIT)


def certificate(tmp_path: Path) -> Path:
    """A certificate for `localhost`, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.2"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "cert.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


async def test_tls_is_verified_for_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path)
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.sni_callback = lambda sock, name, context: names.append(name)
    async with peers(ssl=context) as (peer, asker):
        asker.origin = asker.origin.replace("127.0.0.1", "localhost")
        # Nobody whom this system trusts has signed it.
        with pytest.raises(ConnectError, match="self-signed"):
            await asker.ask()
        trusting = ssl.create_default_context(cafile=path)
        monkeypatch.setattr(client_module, "_ssl_context", lambda ca_file: trusting)
        for _ in range(2):
            assert (await asker.ask()).body == b"ok"
        assert len(peer.connections) == 1
        assert set(names) == {"localhost"}
        asker.origin = asker.origin.replace("localhost", "127.0.0.1")
        with pytest.raises(ConnectError, match=r"not valid for '127.0.0.1'"):
            await asker.ask()


def test_the_environment_says_whom_to_trust(tmp_path: Path) -> None:
    """In a process of its own: it is read once a process."""
    program = (
        "import sys; from stephttp.engine.outbound.client import _ssl_context as context;"
        "print(context(sys.argv[1]).cert_store_stats()['x509'])"
    )
    found = {}
    for name in ("SSL_CERT_FILE", "--ca-file", ""):
        environ = {key: value for key, value in os.environ.items() if key != "SSL_CERT_FILE"}
        path = str(certificate(tmp_path))
        environ |= {name: path} if name == "SSL_CERT_FILE" else {}
        command = [sys.executable, "-c", program, path if name == "--ca-file" else ""]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        found[name] = int(done.stdout)
    assert found["SSL_CERT_FILE"] == 1
    assert found[""] != 1
    assert found["--ca-file"] == found[""] + 1
