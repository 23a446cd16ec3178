"""Apps and their functions, as they register them."""

from __future__ import annotations

from stephttp.engine.model.function_options import NO_OPTIONS, FunctionOptions
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.values import Value


class Trigger(Value, frozen=True, gc=False):
    """What starts a function: an event of this name that fulfils the condition, or the time.

    Attributes:
        event: the name; one that ends with `*` stands for all names that begin so. Empty if it is
            the time.
        condition: CEL over the event.
        cron: the times, as a cron expression.
        jitter_ms: how much later than at these times it may be.
    """

    event: str
    condition: str | None = None
    cron: str | None = None
    jitter_ms: int = 0


class Function(Value, frozen=True, gc=False):
    """A function.

    Attributes:
        endpoint: where it is called, and how often it is tried again.
        name: what people call it.
        config: as it was registered, as JSON.
        paused: nothing starts it for now; the runs that it has continue.
    """

    endpoint: Endpoint
    name: str
    triggers: tuple[Trigger, ...]
    config: bytes
    options: FunctionOptions = NO_OPTIONS
    paused: bool = False

    @property
    def why_not_started(self) -> str | None:
        """Why nothing starts it; `None` if something can."""
        return self.endpoint.refused or ("it is paused" if self.paused else None)


class App(Value, frozen=True, gc=False):
    """An app that registers functions.

    Attributes:
        url: where it serves them.
        synced_ms: when what it registers has changed last.
    """

    app_id: str
    name: str
    url: str
    sdk: str
    framework: str
    synced_ms: int = 0


class Registration(Value, frozen=True, gc=False):
    """An app with its functions; `digest` is that of all it says."""

    app: App
    functions: tuple[Function, ...]
    digest: bytes
