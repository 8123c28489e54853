"""What `manage.py check --database default` can know of callers: whether each row could be saved as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, register

from access.models import ApiKey, Budget, Team
from providers.checks import refused_rows


@register(Tags.database)
def caller_rows_work(databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    found = refused_rows(Team, databases, "access.E001") + refused_rows(ApiKey, databases, "access.E002")
    return found + refused_rows(Budget, databases, "access.E003")
