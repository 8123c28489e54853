"""Vendors. Of a key the name, the weight and whether it is switched on; the secret itself is entered where the provider is to work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from rest_framework import serializers

from llmcontrol.portable.document import Entry
from llmcontrol.portable.kind import NO_SECRETS, SECRET_NEEDED, Serialized, in_order
from monitoring.api.bodies import Strict, in_body_words
from providers import services
from providers.api.serializers import PATHS, ProviderSerializer
from providers.models import Provider, ProviderKey


class _KeySerializer(Strict):
    name = serializers.CharField(max_length=80, allow_blank=True)
    weight = serializers.IntegerField(required=False)
    is_active = serializers.BooleanField(required=False)
    # Whatever else stands there is repeated nowhere.
    secret = serializers.ChoiceField(choices=[SECRET_NEEDED], required=False, error_messages={"invalid_choice": NO_SECRETS})


class _KeysSerializer(Strict):
    keys = _KeySerializer(many=True, required=False)


class Providers(Serialized):
    section, model, serializer = "providers", Provider, ProviderSerializer

    def rows(self) -> Iterable[Provider]:
        return Provider.objects.prefetch_related("keys")

    def shown(self, row: Provider) -> Entry:
        said = super().shown(row)
        said["config"] = {"base_url": row.base_url, **in_order(row.options)}
        return {**said, "keys": [_said_of(key) for key in row.keys.all()]}

    def save(self, row: Provider | None, entry: Entry, changed: Entry) -> Provider:
        asked = _KeysSerializer(data={"keys": entry.get("keys", [])})
        asked.is_valid(raise_exception=True)
        body = {name: value for name, value in (entry if row is None else changed).items() if name != "keys"}
        saved = self.saved(row, body) if row is None or body else row
        for said, key in _pairs(asked.validated_data["keys"], saved):
            if key is not None:
                wanted = {name: said[name] for name in ("weight", "is_active") if said.get(name, getattr(key, name)) != getattr(key, name)}
                if wanted:
                    self.permit("providers.change_providerkey")
                    services.change_key(key, wanted)
        return saved

    def saved(self, row: Provider | None, body: Entry) -> Provider:
        serializer = self._serializer(row, data=body, partial=row is not None)
        serializer.is_valid(raise_exception=True)
        values = serializer.validated_data
        if "secrets" in values:
            raise serializers.ValidationError({"config": NO_SECRETS})
        with in_body_words(PATHS):
            return services.create_provider(**values) if row is None else services.update_provider(row, values)

    def notes(self, row: Provider, entry: Entry) -> Iterator[str]:
        said = entry.get("keys", [])
        awaited = [one["name"] for one, key in _pairs(said, row) if key is None]
        if awaited:
            names = ", ".join(name or "one without a name" for name in awaited)
            yield f"Keys to be entered here: {names}."
        elif services.needs_key(row.provider_type) and not row.keys.exists():
            yield "It needs a key to be entered here."


def _said_of(key: ProviderKey) -> Entry:
    return {"name": key.name, "weight": key.weight, "is_active": key.is_active, "secret": SECRET_NEEDED}


def _pairs(said: Iterable[Any], provider: Provider) -> Iterator[tuple[Any, ProviderKey | None]]:
    """Each key of an entry with the one here of the same name; of several of one name the oldest first."""
    here: dict[str, list[ProviderKey]] = defaultdict(list)
    for key in ProviderKey.objects.filter(provider=provider).order_by("created_at"):
        here[key.name].append(key)
    for one in said:
        yield one, here[one["name"]].pop(0) if here[one["name"]] else None
