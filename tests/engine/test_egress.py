"""Where the engine's requests go: rules, addresses, names that change their address."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from stephttp.engine.outbound import egress
from stephttp.engine.outbound.client import Client
from stephttp.engine.outbound.connection import ConnectError, HTTPRequest
from stephttp.engine.outbound.egress import Egress, parse_rule
from stephttp.errors import ConfigurationError

from .support import Server, new_run, sleep, world

PUBLIC, PRIVATE, LOOPBACK, METADATA = "93.184.216.34", "10.1.2.3", "127.0.0.1", "169.254.169.254"


def judge(*rules: str, private: bool = False) -> Egress:
    return Egress([parse_rule(rule) for rule in rules], private)


@pytest.mark.parametrize(
    ("rules", "host", "address", "allowed"),
    [
        ([], "a.example.com", PUBLIC, True),
        ([], "a.example.com", PRIVATE, False),
        ([], "localhost", LOOPBACK, False),
        ([], "a.example.com", METADATA, False),
        ([], "a.example.com", "0.0.0.0", False),
        ([], "a.example.com", "100.64.0.1", False),
        ([], "a.example.com", "224.0.0.1", False),
        ([], "a.example.com", "::1", False),
        ([], "a.example.com", "fe80::1", False),
        ([], "a.example.com", "fd00::1", False),
        ([], "a.example.com", "2606:4700::1111", True),
        # IPv4 inside IPv6: mapped, 6to4, NAT64.
        ([], "a.example.com", "::ffff:10.1.2.3", False),
        ([], "a.example.com", "::ffff:93.184.216.34", True),
        ([], "a.example.com", "2002:a01:203::1", False),
        ([], "a.example.com", "64:ff9b::a01:203", False),
        (["a.example.com"], "a.example.com", PUBLIC, True),
        (["a.example.com"], "A.Example.com.", PUBLIC, True),
        (["a.example.com"], "b.example.com", PUBLIC, False),
        (["a.example.com"], "a.example.com.evil.test", PUBLIC, False),
        (["a.internal"], "a.internal", PRIVATE, True),
        (["localhost"], "localhost", LOOPBACK, True),
        (["a.internal"], "a.internal", METADATA, False),
        (["a.internal"], "a.internal", "::ffff:169.254.169.254", False),
        (["*.example.com"], "a.example.com", PUBLIC, True),
        (["*.example.com"], "example.com", PUBLIC, False),
        (["*.example.com"], "evilexample.com", PUBLIC, False),
        (["*.example.com"], "a.example.com", PRIVATE, False),
        (["*.example.com", "10.0.0.0/8"], "a.example.com", PRIVATE, True),
        (["*"], "any.name", PUBLIC, True),
        (["*"], "any.name", PRIVATE, False),
        (["*", "10.0.0.0/8"], "any.name", PRIVATE, True),
        (["*:8000"], "any.name", PUBLIC, True),
        (["*:443"], "any.name", PUBLIC, False),
        (["10.0.0.0/8"], "any.name", PRIVATE, True),
        (["10.0.0.0/8"], "any.name", "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "any.name", PUBLIC, False),
        (["a.internal:8000"], "a.internal", PRIVATE, True),
        (["a.internal:9000"], "a.internal", PRIVATE, False),
        (["127.0.0.1:8000"], "x", LOOPBACK, True),
        (["127.0.0.1:9000"], "x", LOOPBACK, False),
        (["[::1]:8000"], "x", "::1", True),
        (["169.254.169.254"], "x", METADATA, True),
    ],
)
def test_rules(rules: list[str], host: str, address: str, allowed: bool) -> None:
    refusal = judge(*rules).refuse(host, 8000, ip_address(address))
    assert (refusal is None) is allowed, refusal
    if refusal:
        assert "--allow-host" in refusal


@pytest.mark.parametrize(
    "text",
    ["", "http://a.test", "a b", "a.test:0", "a.test:99999", "10.0.0.1/8", "999.1.1.1", "**", "*x"],
)
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="allow-host"):
        parse_rule(text)


def test_everything_is_allowed_in_development() -> None:
    assert judge(private=True).refuse("x", 80, ip_address(METADATA)) is None
    assert judge("a.test", private=True).refuse("b.test", 80, ip_address(PUBLIC))


@pytest.mark.parametrize(
    "origin", ["http://10.0.0.1", "http://[::1]:8000", "http://localhost.test", "http://127.0.0.1"]
)
async def test_a_first_checkpoint_that_could_never_be_called_is_refused(origin: str) -> None:
    async with world(private_hosts=False, allow_hosts=("app.test",)) as w:
        refused = await w.http.post(
            "/v1/checkpoint", json=new_run(sleep(), data={"domain": origin})
        )
        assert refused.status_code == 403
        assert refused.json()["error"].startswith("event.data.domain: ")
        assert (await w.http.get("/v1/runs")).json()["data"] == []
        await w.post(sleep())


async def get(rules: list[str], url: str) -> bytes:
    client = Client(judge(*rules), 5)
    try:
        return (await client.send(HTTPRequest("GET", url, "/", {}), 100)).body
    finally:
        await client.close()


async def test_real_connections_are_judged_by_their_address() -> None:
    async with Server() as server:
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):
            with pytest.raises(ConnectError, match="not public"):
                await get([], f"http://{host}:{server.port}")
        assert server.asked == 0
        for rules, host in ((["localhost"], "localhost"), (["127.0.0.0/8"], "127.0.0.1")):
            assert await get(rules, f"http://{host}:{server.port}") == b"ok"
        assert server.asked == 2


async def test_a_name_that_changes_its_address_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: the address that is judged is the one that is connected to."""
    answers: list[list[str]] = []
    connected: list[Any] = []
    asked: list[str] = []

    async def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    async def connect(make: Any, host: str, port: int, **more: Any) -> Any:
        connected.append(host)
        raise OSError(f"nobody at {host}")

    monkeypatch.setattr(egress, "_look_up", look_up)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
    # First a public address, then, for the very same name, the cloud's metadata service.
    answers[:] = [[PUBLIC], [METADATA], [METADATA, PUBLIC, LOOPBACK]]
    for message in (f"nobody at {PUBLIC}", f"address {METADATA}", f"nobody at {PUBLIC}"):
        with pytest.raises(ConnectError, match=message):
            await get([], "http://rebind.test")
    assert connected == [PUBLIC, PUBLIC]
    assert asked == ["rebind.test"] * 3
    # A name that is not on the list is not even looked up.
    with pytest.raises(ConnectError, match="not an allowed host"):
        await get(["a.test"], "http://rebind.test")
    assert len(asked) == 3
