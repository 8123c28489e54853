"""From rows to the document."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from gateway.config.models import ConfigVersion
from llmcontrol.portable import document
from llmcontrol.portable.kind import Scene
from llmcontrol.portable.registry import KINDS
from monitoring import audit
from monitoring.models import AuditEvent
from monitoring.moment import one_moment

PERMISSION = "gateway_config.export_configversion"


class UnknownSection(ValueError):
    """The message names it."""


def exported(scene: Scene, only: Collection[str] = ()) -> bytes:
    """What is in force at `scene.now`, of the sections in `only`, or of all; that it was written is recorded. Raises UnknownSection."""
    if unknown := [name for name in only if name not in KINDS]:
        raise UnknownSection(f"There is no section {unknown[0]!r}; there are {', '.join(KINDS)}.")
    with one_moment():
        chosen = [kind(scene) for name, kind in KINDS.items() if name in only or not only]
        text = document.written({kind.section: [entry for entry, _ in kind.stored] for kind in chosen})
    told = {"what": "the configuration", "sections": [kind.section for kind in chosen], "sha256": hashlib.sha256(text).hexdigest()}
    audit.record(AuditEvent.Action.EXPORTED, ConfigVersion.objects.first(), {name: (None, value) for name, value in told.items()})
    return text
