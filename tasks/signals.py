"""What extensions may listen to. Receivers of `submitted` and `ended` run in the thread of whoever sends, after the commit, and must be
quick; one that fails harms nobody. Those of `ending` run in the transaction of the ending: what they write is there if the ending is,
and if they raise, the task has not ended.
"""

from __future__ import annotations

from django.dispatch import Signal

# All of them: tasks: list[tasks.models.Task], with what came of them.
submitted = Signal()
ending = Signal()
ended = Signal()
