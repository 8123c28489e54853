"""The column that holds sealed secrets."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.db import models


class EncryptedField(models.BinaryField):
    """Sealed bytes (`core.secrets.KeyRing.seal`), never plaintext: opening takes the ring and what the row is bound to.

    The model's method `bound_to()` says the latter; with it, `providers.sealing` (`manage.py rotate_kek`) finds the column.

    Never editable and never in a form or serializer; look-ups other than `isnull` are refused, so that a filter cannot
    be used to guess a secret byte by byte.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def check(self, **options: Any) -> list[CheckMessage]:
        sealed = [field for field in self.model._meta.local_fields if isinstance(field, EncryptedField)]
        if len(sealed) == 1 and callable(getattr(self.model, "bound_to", None)):
            return super().check(**options)
        hint = "Give the model a method bound_to(), and every sealed column a model of its own."
        return [Error("A sealed column must be the only one of its model, which says what it is bound to.", hint, self, "providers.E004")]

    def get_lookup(self, lookup_name: str) -> type[models.Lookup] | None:
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else None
