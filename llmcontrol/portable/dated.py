"""What holds from a moment on and is never edited: prices and exchange rates.

In the document is what is in force, without a moment, and what is announced, with the moment from which it holds. What is over stays
where it was: it says what was charged there. A document that has grown older than its own announcements is read as of today.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from llmcontrol.portable.document import Entry
from llmcontrol.portable.kind import Key, Kind

MOMENT = "valid_from"


class Dated(Kind):
    """`key` ends with the moment."""

    def moment_shown(self, valid_from: datetime) -> Entry:
        return {MOMENT: valid_from.astimezone(UTC).isoformat().replace("+00:00", "Z")} if valid_from > self.scene.now else {}

    def key_of(self, entry: Any) -> Key:
        moment = _moment(entry.get(MOMENT))
        announced = moment is not None and moment > self.scene.now
        return (*self._of(entry), moment.astimezone(UTC).isoformat() if announced and moment else "")

    def outdated(self, entries: list[Any]) -> set[int]:
        latest: dict[Key, tuple[datetime, int]] = {}
        over = set()
        for place, entry in enumerate(entries):
            moment = _moment(entry.get(MOMENT)) if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or (moment is not None and moment > self.scene.now):
                continue
            of, begun = self._of(entry), (moment or datetime.min.replace(tzinfo=UTC), place)
            if of in latest and begun[0] != latest[of][0]:
                over.add(min(begun, latest[of])[1])
            latest[of] = max(begun, latest.get(of, begun))
        return over

    def _of(self, entry: Any) -> Key:
        return super().key_of({name: value for name, value in entry.items() if name != MOMENT})[:-1]


def _moment(text: Any) -> datetime | None:
    """None where it is none: the service says so."""
    try:
        moment = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
