"""A double of the real Inngest server, with its traps: docs/protocol.md 4, 6 and 7.

It does what that does for good runs and for bad ones: it hangs on `[]` and on an id that is listed
as pending and never saved, it never ends a run whose attempts are used up by plain errors, it
restores no header but the content type, it calls once for everything that ends, all at once.

    server        the whole: the SDK's transport, the calls of the application, the clock
    api           what it answers
    executor      what it makes of ops and answers
    state         what it keeps
    calls         the requests of re-entries
    interleaving  gates, so that a test chooses the order of what happens
    turns         the same for threads of the application
    programs      handlers with parallel branches, in each framework
    series        many runs of them, racing and with nodes that die, and the figures
"""

from tests.realserver.executor import START
from tests.realserver.server import APP, SERVER, RealServer
from tests.realserver.state import Item, RealRun

__all__ = ["APP", "SERVER", "START", "Item", "RealRun", "RealServer"]
