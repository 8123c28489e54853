"""The one integer that says which configuration is in force."""

from __future__ import annotations

from django.db import models


class ConfigVersion(models.Model):
    """A single row (pk 1). Database triggers raise `version` in the transaction of any change to a configuration table."""

    version = models.PositiveBigIntegerField(default=1)

    class Meta:
        verbose_name = "configuration version"

    def __str__(self) -> str:
        return f"version {self.version}"
