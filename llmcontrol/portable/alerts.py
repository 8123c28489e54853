"""Whom alerts are told, and of what. Addresses of channels may hold a credential and stay here, as their secrets do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rest_framework import serializers

from llmcontrol.portable.document import Entry
from llmcontrol.portable.kind import NO_SECRETS, SECRET_NEEDED, Serialized, found_by
from monitoring.api.bodies import in_body_words
from telling.alert_models import AlertChannel, AlertRule
from telling.alert_services import save_channel
from telling.api.alerts import AlertChannelSerializer, AlertRuleSerializer
from telling.channels.registry import CHANNELS


class AlertChannels(Serialized):
    section, model, serializer = "alert_channels", AlertChannel, AlertChannelSerializer

    def shown(self, row: AlertChannel) -> Entry:
        marker = {"secret": SECRET_NEEDED} if "url" in CHANNELS[row.kind].fields else {}
        return {**super().shown(row), **marker}

    def saved(self, row: AlertChannel | None, body: Entry) -> AlertChannel:
        rest = dict(body)
        if rest.pop("secret", SECRET_NEEDED) != SECRET_NEEDED:
            raise serializers.ValidationError({"secret": NO_SECRETS})
        serializer = self._serializer(row, data=rest, partial=row is not None)
        serializer.is_valid(raise_exception=True)
        channel = AlertChannel() if row is None else row
        for name, value in serializer.validated_data.items():
            setattr(channel, name, value)
        with in_body_words():
            return save_channel(channel, awaited=True)

    def notes(self, row: AlertChannel, entry: Entry) -> Iterator[str]:
        if not row.shown_address:
            yield "It needs its address, and its secret if it has one, to be entered here; until then it is told nothing."


class AlertRules(Serialized):
    section, model, serializer = "alert_rules", AlertRule, AlertRuleSerializer

    def rows(self) -> Iterable[AlertRule]:
        return AlertRule.objects.prefetch_related("channels")

    def shown(self, row: AlertRule) -> Entry:
        return {**super().shown(row), "channels": sorted(channel.name for channel in row.channels.all())}

    def resolved(self, entry: Entry) -> Entry:
        names = entry.get("channels")
        if not isinstance(names, list):
            return entry
        return {**entry, "channels": [found_by("channels", AlertChannel, name=name).pk for name in names]}
