"""The one integer that says which configuration is in force."""

from __future__ import annotations

from django.db import models


class ConfigVersion(models.Model):
    """A single row (pk 1). Database triggers raise `version` in the transaction of any change to a configuration table."""

    version = models.PositiveBigIntegerField(default=1)

    class Meta:
        verbose_name = "configuration version"
        permissions = [
            ("export_configversion", "Can take the configuration away as a document"),
            ("import_configversion", "Can bring the configuration in line with a document"),
        ]

    def __str__(self) -> str:
        return f"version {self.version}"
