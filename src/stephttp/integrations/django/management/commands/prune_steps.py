"""`manage.py prune_steps`: deletes the rows of old steps."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from stephttp.integrations.django import prune


class Command(BaseCommand):
    """The command."""

    help = "Deletes the rows of steps (stephttp_steps) that are older than so many days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add `--days` and `--database`."""
        parser.add_argument("--days", type=float, default=30.0, help="age in days (30)")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database")

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete them, and say how many there were."""
        try:
            deleted = prune(timedelta(days=options["days"]), using=options["database"])
        except ValueError as error:
            raise CommandError(f"--days: {error}") from error
        self.stdout.write(f"deleted {deleted} rows")
