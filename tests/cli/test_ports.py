from __future__ import annotations

import socket

import pytest

from stephttp.cli.ports import PortError, listen


def test_kernel_chooses_with_port_zero() -> None:
    listener, url = listen("127.0.0.1", 0)
    with listener:
        assert url == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_listens_at_once() -> None:
    listener, _ = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        pass


@pytest.mark.parametrize(
    ("host", "start"), [("0.0.0.0", "http://127.0.0.1:"), ("localhost", "http://localhost:")]
)
def test_url_is_one_that_can_be_called(host: str, start: str) -> None:
    listener, url = listen(host, 0)
    with listener:
        assert url.startswith(start)


def test_taken_port_is_named() -> None:
    first, _ = listen("127.0.0.1", 0)
    with first:
        port = first.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} on 127.0.0.1 is taken"):
            listen("127.0.0.1", port)
