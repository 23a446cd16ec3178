"""What uvicorn writes piece by piece is sent together."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from stephttp.cli.serving import Server
from stephttp.cli.write_coalescing import CoalescingTransport


class Transport:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def write(self, data: bytes) -> None:
        self.said.append(data)

    def close(self) -> None:
        self.said.append("closed")

    def set_protocol(self, protocol: object) -> None:
        self.said.append(protocol)

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"

    def is_closing(self) -> bool:
        return "closed" in self.said


def joined() -> tuple[Any, list[Any]]:
    transport: Any = Transport()
    return CoalescingTransport(transport, asyncio.get_running_loop()), transport.said


async def test_an_answer_is_one_write() -> None:
    transport, said = joined()
    transport.write(b"head")
    transport.write(b"body")
    assert said == []
    await asyncio.sleep(0)
    assert said == [b"headbody"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert said == [b"headbody", b"next"]


async def test_much_is_not_held_back_so_that_the_transport_can_ask_for_a_pause() -> None:
    transport, said = joined()
    transport.write(b"head")
    transport.write(b"x" * 100_000)
    assert said == [b"head" + b"x" * 100_000]
    await asyncio.sleep(0)
    assert len(said) == 1


async def test_what_was_written_goes_out_before_the_end_and_before_another_protocol() -> None:
    transport, said = joined()
    transport.write(b"bye")
    transport.close()
    assert said == [b"bye", "closed"]
    transport, said = joined()
    transport.write(b"101")
    transport.set_protocol("websocket")
    assert said == [b"101", "websocket"]


async def test_nothing_is_written_to_a_connection_that_is_gone() -> None:
    transport, said = joined()
    transport.write(b"late")
    said.append("closed")  # by the other side
    await asyncio.sleep(0)
    assert said == ["closed"]


async def test_all_else_is_the_transports_own() -> None:
    transport, _ = joined()
    assert transport.get_extra_info("peername") == "the peername"


async def test_an_answer_reaches_a_client_that_says_no_more() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {
            "type": "http.response.start",
            "status": 404,
            "headers": [(b"content-length", b"2")],
        }
        await send(start)
        await send({"type": "http.response.body", "body": b"no"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app, listener, grace=1, leaving=lambda: None)
        serving = asyncio.create_task(server.run_until_exit())
        await server.ready
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nhost: engine\r\n\r\n")
            writer.write_eof()
            assert (await reader.read()).endswith(b"\r\n\r\nno")
            writer.close()
        server.should_exit = True
        await serving
