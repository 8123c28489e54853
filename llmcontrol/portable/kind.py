"""What every section of the document is: which rows are in it, what an entry says of one, and how an entry becomes a row.

Another kind is one file beside this one and one line in `registry`. A kind whose rows have a REST serializer is `Serialized`: an entry
then says what a REST body says, with names in place of ids, and is judged by the same service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from django.db.models import Model
from rest_framework import serializers

from llmcontrol.portable.document import Entry

SECRET_NEEDED = "needed"  # nosec B105 (a marker)
NO_SECRETS = "A document holds no secrets: leave it out, and enter it in the admin."
Key = tuple[str, ...]


class Scene(NamedTuple):
    """When, and by whom: None is whoever may run commands here."""

    now: datetime
    user: Any = None

    @property
    def username(self) -> str:
        return self.user.get_username() if self.user is not None else ""


class Kind:
    """One section, at one moment. `key`: the fields that say which row an entry is about; what is empty in them may be left out.

    `repeats`: several rows may have one key; the first of the document is then the first of those here, and so on.
    """

    section: ClassVar[str]
    model: ClassVar[type[Model]]
    key: ClassVar[tuple[str, ...]] = ("name",)
    repeats: ClassVar[bool] = False

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def rows(self) -> Iterable[Any]:
        """Those that belong into the document."""
        return self.model._default_manager.all()

    def shown(self, row: Any) -> Entry:
        """All that an entry says of it, without a secret."""
        raise NotImplementedError

    def save(self, row: Any | None, entry: Entry, changed: Entry) -> Any:
        """The row that is there afterwards. `changed`: what `entry` says otherwise than `row`. Raises ValidationError (either)."""
        raise NotImplementedError

    def notes(self, row: Any, entry: Entry) -> Iterator[str]:
        """What people have to do yet, in plain sentences."""
        yield from ()

    def outdated(self, entries: list[Any]) -> set[int]:
        """Places of entries that others of the document have taken the place of by now."""
        return set()

    def key_of(self, entry: Mapping[str, Any]) -> Key:
        return tuple(json.dumps(entry.get(name) or None, sort_keys=True) for name in self.key)

    def name_of(self, entry: Mapping[str, Any]) -> str:
        """For people."""
        said = (entry.get(name) for name in self.key)
        return " ".join(_in_words(value) for value in said if value)

    @cached_property
    def stored(self) -> list[tuple[Entry, Any]]:
        """As the document has them, in its order: by key, so that a row more or less moves no other."""
        pairs = [(self.shown(row), row) for row in self.rows()]
        return sorted(pairs, key=lambda pair: (self.key_of(pair[0]), json.dumps(pair[0], sort_keys=True, default=str)))

    def permission(self, verb: str) -> str:
        """`verb`: add | change."""
        return f"{self.model._meta.app_label}.{verb}_{self.model._meta.model_name}"

    def permit(self, permission: str) -> None:
        """Who may import may do nothing by it that they could not do by hand. Raises ValidationError."""
        user = self.scene.user
        if user is not None and not user.has_perm(permission):
            raise serializers.ValidationError(f"You may not do this: it needs the permission {permission}.")


class Serialized(Kind):
    """By the serializer of REST. `references`: field → the kind of row whose name stands in place of its id; `ordered`: objects
    whose order means nothing, so that it is always the same."""

    serializer: ClassVar[type[serializers.Serializer]]
    references: ClassVar[Mapping[str, type[Model]]] = {}
    ordered: ClassVar[tuple[str, ...]] = ()

    def shown(self, row: Any) -> Entry:
        said = dict(self._reader.to_representation(row))
        for name in self.references:
            said[name] = getattr(row, name).name
        for name in self.ordered:
            said[name] = in_order(said[name])
        return _plain(said)

    def save(self, row: Any | None, entry: Entry, changed: Entry) -> Any:
        return self.saved(row, self.resolved(entry if row is None else changed))

    def saved(self, row: Any | None, body: Entry) -> Any:
        """By a body of REST."""
        serializer = self._serializer(row, data=body, partial=row is not None)
        serializer.is_valid(raise_exception=True)
        return serializer.save()

    def resolved(self, entry: Entry) -> Entry:
        """With ids in place of names. Raises ValidationError."""
        found = {name: found_by(name, model, name=entry[name]).pk for name, model in self.references.items() if name in entry}
        return {**entry, **found}

    @cached_property
    def _reader(self) -> serializers.Serializer:
        return self._serializer(None)

    def _serializer(self, row: Any | None, **more: Any) -> serializers.Serializer:
        """What REST only tells, such as ids and dates, and what it only takes, such as secrets, is no part of an entry."""
        serializer = self.serializer(row, **more)
        for name, field in list(serializer.fields.items()):
            if field.read_only or field.write_only:
                del serializer.fields[name]
        return serializer


def found_by(field: str, model: type[Model], **names: Any) -> Any:
    """The one row of these names. Raises ValidationError under `field`."""
    if not all(isinstance(name, str) for name in names.values()):
        raise serializers.ValidationError({field: "Write a name."})
    row = model._default_manager.filter(**names).first()
    if row is None:
        told = " ".join(map(repr, names.values()))
        raise serializers.ValidationError({field: f"There is no {model._meta.verbose_name} {told}, neither here nor in the document."})
    return row


def in_order(value: Any) -> Any:
    """An object by its names; what came past the forms and is none, as it is."""
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    """DRF's own kinds of dict and list as JSON's."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_in_words(item)}" if not isinstance(item, dict) else _in_words(item) for name, item in value.items())
    return str(value)
