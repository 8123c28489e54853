"""What extensions may listen to. Receivers run in the thread of whoever sends, and must be quick."""

from __future__ import annotations

from django.dispatch import Signal

# tasks: list[tasks.models.Task], each time. Before anything is written: a receiver that raises a GatewayError refuses them.
submitting = Signal()
# In the transaction that changes their status, submission included: what a receiver writes is there exactly if the change is, and a
# receiver that raises undoes it. Of the rows only `pk` and `status` are sure to be up to date.
changed = Signal()
# After the commit, where a receiver that fails harms nobody: of those that were taken in, and of those that have ended.
submitted = Signal()
ended = Signal()
