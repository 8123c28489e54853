"""From the document to rows: all of it or nothing.

A plan is not a guess at what would happen: it is what happened, in a transaction that a dry run takes back. So each entry is judged by
the service that keeps such rows, with everything before it in place. What the document does not speak of is left alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import ValidationError as Refusal
from django.db import transaction
from rest_framework.exceptions import ValidationError
from rest_framework.settings import api_settings

from core.secrets import CannotOpen
from gateway.config.models import ConfigVersion
from llmcontrol.portable.document import Document, DocumentRefused, Entry, Fault
from llmcontrol.portable.kind import Key, Kind, Scene
from llmcontrol.portable.plan import CHANGED, CREATED, LEFT, UNCHANGED, Outcome, Plan, differences
from llmcontrol.portable.registry import KINDS
from monitoring import audit
from monitoring.api.bodies import in_body_words
from monitoring.models import AuditEvent

PERMISSION = "gateway_config.import_configversion"
_OVER = "Another entry of the document has taken its place by now."


class PlanOutdated(Exception):
    """What was agreed to is not what would happen now: `plan`. Nothing was taken."""

    def __init__(self, plan: Plan) -> None:
        super().__init__("The configuration here has changed since this plan was made: look at the new one. Nothing was taken.")
        self.plan = plan


def take(document: Document, scene: Scene, *, dry_run: bool, agreed: str = "") -> Plan:
    """What became of each entry, or with `dry_run` would have. `agreed`: the fingerprint of the plan that is to happen, "" = any.

    Raises DocumentRefused with every fault that was found, PlanOutdated.
    """
    faults: list[Fault] = []
    outcomes: list[Outcome] = []
    with transaction.atomic():
        for name in (name for name in KINDS if name in document.sections):
            outcomes += _Section(KINDS[name](scene), document.sections[name]).taken(faults)
        plan = Plan(document.sha256, tuple(outcomes))
        outdated = bool(agreed) and agreed != plan.fingerprint
        if faults or dry_run or outdated:
            transaction.set_rollback(True)
        elif not plan.changes_nothing:
            _record(plan)
    if faults:
        raise DocumentRefused(*faults)
    if outdated:
        raise PlanOutdated(plan)
    return plan


def _record(plan: Plan) -> None:
    told = {"what": "a configuration was imported", "sha256": plan.sha256, CREATED: plan.counts[CREATED], CHANGED: plan.counts[CHANGED]}
    audit.record(AuditEvent.Action.CHANGED, ConfigVersion.objects.first(), {name: (None, value) for name, value in told.items()})


class _Section:
    """The entries of one kind, and the rows that they are about."""

    def __init__(self, kind: Kind, entries: list[Any]) -> None:
        self._kind = kind
        self._entries = entries

    def taken(self, faults: list[Fault]) -> Iterator[Outcome]:
        """In the document's order, then what it leaves alone. What is wrong is added to `faults`."""
        over = self._kind.outdated(self._entries)
        malformed = dict(self._malformed(over))
        faults += malformed.values()
        here = self._here()
        about = {
            place: _next(here, self._kind.key_of(entry)) for place, entry in enumerate(self._entries) if place not in {*over, *malformed}
        }
        done, refused = self._one_by_one(about)
        for place, error in sorted(refused.items()):
            faults += self._faults(place, error)
        done |= {place: self._outcome(self._entries[place], UNCHANGED, notes=(_OVER,)) for place in over}
        yield from (done[place] for place in sorted(done))
        yield from (self._outcome(shown, LEFT) for pairs in here.values() for shown, _ in pairs)

    def _malformed(self, over: set[int]) -> Iterator[tuple[int, Fault]]:
        """By place."""
        seen: set[Key] = set()
        for place, entry in enumerate(self._entries):
            if place in over:
                continue
            if not isinstance(entry, dict):
                yield place, Fault(self._path(place), "", "An entry is an object of names and values.")
                continue
            key = self._kind.key_of(entry)
            if key in seen and not self._kind.repeats:
                yield place, Fault(self._path(place), self._kind.name_of(entry), "It stands in the document twice.")
            seen.add(key)

    def _here(self) -> dict[Key, list[tuple[Entry, Any]]]:
        found: dict[Key, list[tuple[Entry, Any]]] = defaultdict(list)
        for shown, row in self._kind.stored:
            found[self._kind.key_of(shown)].append((shown, row))
        return found

    def _one_by_one(self, about: Mapping[int, Any]) -> tuple[dict[int, Outcome], dict[int, Exception]]:
        """Again and again while one more is taken: what one entry gives up may be what another takes."""
        done: dict[int, Outcome] = {}
        refused: dict[int, Exception] = {}
        waiting = list(about)
        while waiting:
            refused = {}
            for place in waiting:
                try:
                    with transaction.atomic():
                        done[place] = self._take(self._entries[place], about[place])
                except (Refusal, ValidationError, CannotOpen) as error:
                    refused[place] = error
            if len(refused) == len(waiting):
                break
            waiting = list(refused)
        return done, refused

    def _take(self, entry: Entry, about: tuple[Entry, Any] | None) -> Outcome:
        if about is None:
            saved = self._kind.save(None, entry, entry)
            self._kind.permit(self._kind.permission("add"))
            return self._outcome(entry, CREATED, notes=self._kind.notes(self._again(saved), entry))
        before, row = about
        changed = {name: value for name, value in entry.items() if name not in before or before[name] != value}
        if not changed:
            return self._outcome(before, UNCHANGED, notes=self._kind.notes(row, entry))
        saved = self._again(self._kind.save(self._again(row), entry, changed))
        changes = tuple(differences(before, self._kind.shown(saved)))
        if changes:
            self._kind.permit(self._kind.permission("change"))
        verb = CHANGED if changes else UNCHANGED
        return self._outcome(before, verb, changes=changes, notes=self._kind.notes(saved, entry))

    def _again(self, row: Any) -> Any:
        """As the database has it: a form of a value that only the document has is no change."""
        return self._kind.model._default_manager.get(pk=row.pk)

    def _outcome(self, entry: Entry, verb: str, *, changes: tuple[Any, ...] = (), notes: Any = ()) -> Outcome:
        return Outcome(self._kind.section, self._kind.name_of(entry), verb, changes, tuple(notes))

    def _faults(self, place: int, error: Exception) -> Iterator[Fault]:
        name = self._kind.name_of(self._entries[place])
        if isinstance(error, CannotOpen):
            yield Fault(self._path(place), name, str(error))
            return
        try:
            with in_body_words():
                raise error
        except ValidationError as refused:
            yield from (Fault(path, name, sentence) for path, sentence in _told(self._path(place), refused.detail))

    def _path(self, place: int) -> str:
        return f"{self._kind.section}[{place}]"


def _next(here: Mapping[Key, list[tuple[Entry, Any]]], key: Key) -> tuple[Entry, Any] | None:
    return here[key].pop(0) if here[key] else None


def _told(path: str, detail: Any) -> Iterator[tuple[str, str]]:
    """(path, sentence): what REST says of a body, as a path each."""
    if isinstance(detail, dict):
        for name, inside in detail.items():
            yield from _told(path if name == api_settings.NON_FIELD_ERRORS_KEY else f"{path}.{name}", inside)
    elif isinstance(detail, list):
        for place, inside in enumerate(detail):
            yield from _told(f"{path}[{place}]" if isinstance(inside, dict) else path, inside)
    else:
        yield path, str(detail)
