"""A trail of its own for each test: a second sink that no other test writes to, and a sampler that has seen nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monitoring import audit_people
from monitoring.models import AuditEvent


@pytest.fixture(autouse=True)
def second_sink(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(audit_people, "_sampler", None)
    settings.AUDIT_CHECKPOINTS = tmp_path / "checkpoints.jsonl"
    return settings.AUDIT_CHECKPOINTS


def trail() -> list[tuple[str, str]]:
    """(action, object) in order."""
    return list(AuditEvent.objects.order_by("sequence").values_list("action", "object_label"))
