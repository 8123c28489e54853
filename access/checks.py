"""What `manage.py check` can know of callers: whether each row could be saved as it is."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, register

from access.models import ApiKey, Team
from models_registry.checks import refused_rows


@register()
def caller_rows_work(**options: Any) -> list[CheckMessage]:
    return refused_rows(Team.objects.all(), "access.E001") + refused_rows(ApiKey.objects.iterator(), "access.E002")
