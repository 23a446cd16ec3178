"""What type checkers see of steps that are transactions; see `test_step_types`."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from stephttp import idempotency_key, step
from stephttp.integrations.django import atransaction
from stephttp.integrations.django import transaction as django_transaction
from stephttp.integrations.django import with_options as of_django
from stephttp.integrations.sqlalchemy import transaction, with_options
from stephttp.sync import step as sync_step


class OurSession(Session):
    """A session class of an application."""


def blocking(session: Session, item: str, *, fast: bool = False) -> int:
    return len(item) + fast


def of_ours(session: OurSession, item: str) -> list[str]:
    return [item]


async def on_loop(session: AsyncSession, item: str) -> bytes:
    return item.encode()


def plain(item: str, *, fast: bool = False) -> int:
    return len(item) + fast


def test_the_types_are_those_of_the_function() -> None:
    """They are checked, and nothing is run."""


if TYPE_CHECKING:

    async def checked() -> None:
        sessions, ours = sessionmaker[Session](), sessionmaker(class_=OurSession)
        later = async_sessionmaker[AsyncSession]()
        assert_type(transaction("a", sessions, blocking, "book", fast=True), int)
        assert_type(transaction("a", ours, of_ours, "book"), list[str])
        assert_type(await transaction("a", later, on_loop, "book"), bytes)
        assert_type(transaction("a", OurSession, of_ours, "book"), list[str])
        patient = with_options(step.options(retries=3))
        assert_type(await patient.transaction("a", later, on_loop, "book"), bytes)
        assert_type(await patient.transaction("a", sessions, blocking, "book"), int)
        blocked = with_options(sync_step.options(retries=3))
        assert_type(blocked.transaction("a", sessions, blocking, "book", fast=True), int)

        assert_type(django_transaction("a", plain, "book", fast=True), int)
        assert_type(django_transaction("a", plain, "book", using="other"), int)
        assert_type(await atransaction("a", plain, "book"), int)
        assert_type(await atransaction("a", plain, "book", using="other"), int)
        assert_type(await of_django(step.options()).atransaction("a", plain, "book"), int)
        assert_type(of_django(sync_step.options()).transaction("a", plain, "b", using="c"), int)
        assert_type(idempotency_key(), str)

        transaction("a", sessions, blocking, 7)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
        django_transaction("a", plain, 7)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
