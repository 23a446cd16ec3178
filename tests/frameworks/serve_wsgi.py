"""Serves a WSGI application by a server that has no command of its own: `wsgiref` or `werkzeug`.

python -m tests.frameworks.serve_wsgi SERVER MODULE:NAME
"""

import signal
import sys
from importlib import import_module
from wsgiref.simple_server import make_server

from werkzeug.serving import make_server as make_werkzeug_server


def main(server: str, application: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    module, _, name = application.partition(":")
    app = getattr(import_module(module), name)
    if server == "wsgiref":
        serving = make_server("127.0.0.1", 0, app)
        port = serving.server_port
    else:
        threaded = make_werkzeug_server("127.0.0.1", 0, app, threaded=True)
        serving, port = threaded, threaded.server_port  # type: ignore[assignment]
    print(f"Serving on http://127.0.0.1:{port}", flush=True)
    serving.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
