"""Flask with `Checkpointing.safe`, for gunicorn's greenlets: loaded before gevent changes Python.

Trio is loaded too: HTTP libraries import it where it is installed.
"""

from datetime import timedelta

import trio  # noqa: F401  # pyright: ignore[reportUnusedImport]
from flask import Flask

import stephttp
from stephttp.sync import step

provider = stephttp.setup("http://127.0.0.1", checkpointing=stephttp.Checkpointing.safe)
app = Flask(__name__)
app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/quick/<number>")
def quick(number: str) -> str:
    return step.run("work", lambda: f"quick {number}")


@app.get("/slow/<number>")
def slow(number: str) -> str:
    done = step.run("work", lambda: f"slow {number}")
    step.sleep("nap", timedelta(milliseconds=1))
    return done
