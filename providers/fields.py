"""The column that holds sealed secrets."""

from __future__ import annotations

from typing import Any

from django.db import models


class EncryptedField(models.BinaryField):
    """Sealed bytes (`core.secrets.KeyRing.seal`), never plaintext: opening takes the ring and what the row is bound to.

    Never editable and never in a form or serializer; look-ups other than `isnull` are refused, so that a filter cannot
    be used to guess a secret byte by byte.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def get_lookup(self, lookup_name: str) -> type[models.Lookup] | None:
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else None
