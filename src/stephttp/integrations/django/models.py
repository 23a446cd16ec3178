"""The table of exactly-once steps, as a model of Django."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from stephttp.integrations._step_rows import TABLE


class Step(models.Model):
    """One step that is a transaction, with its result."""

    pk: Any = models.CompositePrimaryKey("run_id", "step_hash")
    run_id: Any = models.CharField(max_length=64)
    step_hash: Any = models.CharField(max_length=40)
    step_id: Any = models.TextField()
    result: Any = models.TextField(null=True)
    types: Any = models.TextField(null=True)
    created_at: Any = models.DateTimeField()

    objects: ClassVar[models.Manager[Step]] = models.Manager()

    class Meta:
        db_table = TABLE
