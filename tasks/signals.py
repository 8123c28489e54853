"""What extensions may listen to. Receivers run in the thread of whoever sends, after the commit, and must be quick."""

from __future__ import annotations

from django.dispatch import Signal

# tasks: list[tasks.models.Task]
submitted = Signal()
