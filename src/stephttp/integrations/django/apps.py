"""The Django application, as Django finds it by `INSTALLED_APPS`."""

from __future__ import annotations

from django.apps import AppConfig


class StepsConfig(AppConfig):
    """The table `stephttp_steps`, its migrations, and `manage.py prune_steps`."""

    name = "stephttp.integrations.django"
    label = "stephttp"
    verbose_name = "stephttp"
