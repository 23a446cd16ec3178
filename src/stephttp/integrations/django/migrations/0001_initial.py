"""Creates the table `stephttp_steps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar[Sequence[tuple[str, str]]] = []
    operations: ClassVar[Sequence[Operation]] = [
        migrations.CreateModel(
            name="Step",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id",
                        "step_hash",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("run_id", models.CharField(max_length=64)),
                ("step_hash", models.CharField(max_length=40)),
                ("step_id", models.TextField()),
                ("result", models.TextField(null=True)),
                ("types", models.TextField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={"db_table": "stephttp_steps"},
        )
    ]
