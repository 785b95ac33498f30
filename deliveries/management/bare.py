"""Settings for the commands that read files and text only: no database, no broker, no secret, a quick start."""

from __future__ import annotations

from django.apps import AppConfig


class Readers(AppConfig):
    """The commands of `deliveries` without its models, which would want the whole house's settings."""

    name = "deliveries"

    def import_models(self) -> None:
        self.models = {}


INSTALLED_APPS = ["deliveries.management.bare.Readers"]
USE_TZ = True
