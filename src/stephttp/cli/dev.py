"""`stephttp dev`: the engine in this process, the app in a child, both ended together; the
variables that the app gets.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Sequence

from stephttp.cli.app_process import AppProcess, call_in_loop
from stephttp.cli.ca_file import checked
from stephttp.cli.duration_options import optional_seconds, seconds_of
from stephttp.cli.engine_options import DevOptions
from stephttp.cli.password_option import dashboard_password
from stephttp.cli.ports import DEFAULT_PORT, PortError, is_loopback, listen
from stephttp.cli.serving import Server, Stop, first_of
from stephttp.cli.terminal import complain, on_reader_gone, say
from stephttp.engine.app import create_app
from stephttp.engine.dashboard import passwords
from stephttp.engine.engine import Engine
from stephttp.engine.functions.syncing import PORTS, Syncing, app_urls
from stephttp.engine.model.settings import Settings
from stephttp.engine.store.database import MEMORY
from stephttp.errors import ConfigurationError

# Seconds that the app, with its open requests, gets after SIGTERM.
_APP_GRACE = 5.0

# Seconds that the engine's own open requests get. Those that wait for a run end at once.
_REQUEST_GRACE = 2

_COMMAND_NOT_EXECUTABLE = 126
_COMMAND_NOT_FOUND = 127


async def run_dev(options: DevOptions) -> int:
    """Run until Ctrl-C, SIGTERM or the end of the app, and return the exit code.

    0 after a signal, the app's own code when it ended by itself (128 + N if signal N ended it),
    1 when the engine cannot run, 126 and 127 when the command cannot be started.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()
    # Without a reader, the process that started us is gone, perhaps killed.
    on_reader_gone(sys.stdout, lambda: call_in_loop(loop, stop.end))
    try:
        listener, url = listen(options.host, options.port)
    except PortError as error:
        complain(str(error))
        return 1
    with listener:
        port: int = listener.getsockname()[1]
        try:
            password = dashboard_password(options.dashboard_password_file, os.environ)
            ca_file, urls = checked(options.ca_file), app_urls(options.app)
        except ConfigurationError as error:
            complain(f"cannot start: {error}")
            return 1
        if not password and not is_loopback(listener):
            made = secrets.token_urlsafe(12)
            say(f"the dashboard's password, for this time only: {made}")
            password = passwords.as_hash(made)
        try:
            settings = Settings(
                db_path=MEMORY if options.db is None else str(options.db),
                host=options.host,
                port=port,
                event_lookback=options.event_lookback,
                hold=seconds_of("--hold", options.hold),
                link_lifetime=optional_seconds("--link-lifetime", options.link_lifetime),
                trusted_hosts=tuple(options.trust_host or ()),
                dashboard_password=password,
                ca_file=ca_file,
            )
        except ConfigurationError as error:
            complain(f"cannot start: {error}")
            return 1
        app = create_app(settings)
        engine: Engine = app.state.engine
        try:
            await engine.start()
        except ConfigurationError as error:
            complain(str(error))
            return 1
        server = Server(app, listener, _REQUEST_GRACE, engine.drain)
        ports = () if options.no_discovery else tuple(one for one in PORTS if one != port)
        syncing = Syncing(engine.functions, engine.clock, settings, urls, ports, notify=say)
        serving = asyncio.create_task(server.run_until_exit())
        try:
            await first_of(server.ready, serving, stop.asked)
            if server.ready.done():
                _announce(options, url, listener)
                syncing.start()
                return await _run_beside(options.command or (), url, serving, stop)
            return _why_it_ended(stop)
        finally:
            server.should_exit = True
            await syncing.stop()
            await asyncio.wait({serving})
            await engine.stop()


async def _run_beside(
    command: Sequence[str], url: str, serving: asyncio.Future[None], stop: Stop
) -> int:
    """Run the app, if there is one, until the engine should stop; return the exit code."""
    if not command:
        await first_of(serving, stop.asked)
        return _why_it_ended(stop)
    try:
        child = await AppProcess.start(
            command,
            env=_environment(url),
            name="app",
            grace=_APP_GRACE,
        )
    except FileNotFoundError:
        complain(f"cannot start the app: no command {command[0]!r}")
        return _COMMAND_NOT_FOUND
    except OSError as error:
        complain(f"cannot start the app: {command[0]}: {error.strerror}")
        return _COMMAND_NOT_EXECUTABLE
    ended = asyncio.create_task(child.wait())
    try:
        await first_of(ended, serving, stop.asked)
        if not ended.done():
            return _why_it_ended(stop)
    finally:
        await child.stop(stop.hurry)
    code = await ended
    complain(f"the app ended with exit code {code}; stopping the engine")
    return code


def _environment(url: str) -> dict[str, str]:
    """Return the app's environment, which points at this engine.

    An inherited base URL would win over `INNGEST_DEV`, and names another engine.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "INNGEST_BASE_URL"}
    return {**inherited, "INNGEST_DEV": url, "PYTHONUNBUFFERED": "1"}


def _why_it_ended(stop: Stop) -> int:
    if stop.asked.done():
        say("stopping")
        return 0
    complain("the engine has failed; its log says why")
    return 1


def _announce(options: DevOptions, url: str, listener: socket.socket) -> None:
    if options.port is None and not url.endswith(f":{DEFAULT_PORT}"):
        say(f"port {DEFAULT_PORT} is taken, using the next free one")
    kept = "in memory; --db PATH keeps them" if options.db is None else f"in {options.db}"
    if not is_loopback(listener):
        complain(
            f"WARNING: anyone who can reach {options.host} can read and change every run, and make "
            "this engine call any address: `stephttp dev` checks no keys. Use `stephttp start` "
            "on machines that are not only yours."
        )
    say(f"engine ready on {url} (runs are kept {kept})")
