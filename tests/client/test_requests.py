"""What is kept of a request line, by both adapters, to be called again with."""

from urllib.parse import unquote_to_bytes

import pytest

from stephttp._adapters.asgi.request import neutral as of_asgi
from stephttp._adapters.wsgi.request import neutral as of_wsgi


@pytest.mark.parametrize(
    ("path", "query", "kept"),
    [
        (b"/a%2Fb", b"q=%C3%A9&r=a+b%20c", ("/a%2Fb", "q=%C3%A9&r=a+b%20c")),
        # As some clients send it: the same bytes must arrive again, and not those of Latin-1.
        ("/café".encode(), "q=é".encode(), ("/caf%C3%A9", "q=%C3%A9")),
        (b"/", b"q=\xe9", ("/", "q=%E9")),
        (b"/", 'x=%zz|^"<>{}~é'.encode(), ("/", 'x=%zz|^"<>{}~%C3%A9')),
    ],
)
def test_bytes_outside_of_ascii_are_percent_encoded(
    path: bytes, query: bytes, kept: tuple[str, str]
) -> None:
    scope = {"method": "GET", "path": "", "raw_path": path, "query_string": query, "headers": []}
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "RAW_URI": (path + b"?" + query).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
    }
    for request in (of_asgi(scope, b""), of_wsgi(environ, b"")):
        assert (request.path, request.query) == kept
