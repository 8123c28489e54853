"""What a document comes to here: values, worked out by `taking`, for the terminal, the page and REST alike."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec

CREATED: Final = "created"
CHANGED: Final = "changed"
UNCHANGED: Final = "unchanged"
LEFT: Final = "left"
VERBS: Final = (CREATED, CHANGED, UNCHANGED, LEFT)


class Change(msgspec.Struct, frozen=True):
    """`field` as in rate_limit.capacity; None = there was, or is, nothing."""

    field: str
    before: Any
    after: Any


class Outcome(msgspec.Struct, frozen=True):
    """What becomes of one entry; `left`: it is here and not in the document. `notes` say what else is to be done."""

    section: str
    name: str
    verb: str
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    sha256: str
    outcomes: tuple[Outcome, ...]

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(outcome.verb for outcome in self.outcomes)
        return {verb: found[verb] for verb in VERBS}

    @property
    def changes_nothing(self) -> bool:
        return not (self.counts[CREATED] or self.counts[CHANGED])

    @property
    def fingerprint(self) -> str:
        """Names this document and all that it would change here: another one, and what was agreed to is no more what would happen."""
        telling = [outcome for outcome in self.outcomes if outcome.verb in (CREATED, CHANGED)]
        return hashlib.sha256(msgspec.json.encode([self.sha256, telling])).hexdigest()


def differences(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Field by field; a list of objects by its places, any other list as a whole."""
    old, new = _parts(before), _parts(after)
    if before is not None and after is not None and (old is None) != (new is None):
        old = new = None
    if old is None and new is None:
        if before != after:
            yield Change(path, before, after)
        return
    for name in dict.fromkeys([*(old or {}), *(new or {})]):
        inside = name if name.startswith("[") or not path else f".{name}"
        yield from differences((old or {}).get(name), (new or {}).get(name), f"{path}{inside}")


def _parts(value: Any) -> dict[str, Any] | None:
    """None: it is compared as a whole."""
    if isinstance(value, dict) and value:
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {f"[{place}]": item for place, item in enumerate(value)}
    return None


def in_words(value: Any) -> str:
    """As terminals and pages show one side of a change."""
    return "–" if value is None else json.dumps(value, ensure_ascii=False)
