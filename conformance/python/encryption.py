"""Functions whose data is encrypted (`inngest_encryption`), as coroutines and blocking.

`reads-card` only decrypts. It invokes `finds-card`, which encrypts the results of its steps and its
own, and invokes `checks-card` with a field that is encrypted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest
    from inngest_encryption import EncryptionMiddleware

CARD = "4242 4242 4242 4242"
"""What the engine never sees, but in what `reads-card` returns."""
ENCRYPTS = {"middleware": [EncryptionMiddleware.factory("a key of the app")]}
DECRYPTS = {"middleware": [EncryptionMiddleware.factory("a key of the app", decrypt_only=True)]}


def blocking(client: inngest.Inngest) -> Iterator[inngest.Function[Any]]:
    """Functions that block."""

    def function(fn_id: str, options: dict[str, Any]) -> Any:
        trigger = inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}")
        return client.create_function(fn_id=fn_id, trigger=trigger, retries=0, **options)

    @function("checks-card", ENCRYPTS)
    def checks_card(ctx: inngest.ContextSync) -> Any:
        return {"checked": ctx.event.data["encrypted"]}

    @function("finds-card", ENCRYPTS)
    def finds_card(ctx: inngest.ContextSync) -> Any:
        card = ctx.step.run("card", lambda: CARD)
        both = ctx.group.parallel(
            (
                lambda: ctx.step.run("first", lambda: card[:9]),
                lambda: ctx.step.run("last", lambda: card[10:]),
            )
        )
        checked = ctx.step.invoke("check", function=checks_card, data={"encrypted": card})
        return {"card": card, "both": [*both], **checked}

    @function("reads-card", DECRYPTS)
    def reads_card(ctx: inngest.ContextSync) -> Any:
        return ctx.step.invoke("find", function=finds_card)

    yield from (checks_card, finds_card, reads_card)


def coroutines(client: inngest.Inngest) -> Iterator[inngest.Function[Any]]:
    """Functions that are coroutines."""

    def function(fn_id: str, options: dict[str, Any]) -> Any:
        trigger = inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}")
        return client.create_function(fn_id=fn_id, trigger=trigger, retries=0, **options)

    async def part(text: str) -> str:
        return text

    @function("checks-card", ENCRYPTS)
    async def checks_card(ctx: inngest.Context) -> Any:
        return {"checked": ctx.event.data["encrypted"]}

    @function("finds-card", ENCRYPTS)
    async def finds_card(ctx: inngest.Context) -> Any:
        card = await ctx.step.run("card", part, CARD)
        both = await ctx.group.parallel(
            (
                lambda: ctx.step.run("first", part, card[:9]),
                lambda: ctx.step.run("last", part, card[10:]),
            )
        )
        checked = await ctx.step.invoke("check", function=checks_card, data={"encrypted": card})
        return {"card": card, "both": [*both], **checked}

    @function("reads-card", DECRYPTS)
    async def reads_card(ctx: inngest.Context) -> Any:
        return await ctx.step.invoke("find", function=finds_card)

    yield from (checks_card, finds_card, reads_card)
