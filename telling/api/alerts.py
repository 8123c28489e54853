"""Alerts over REST: rules, channels, and what fires or did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet, ReadOnlyModelViewSet

from monitoring.api.bodies import Strict, StrictModel, in_body_words
from telling import alert_services
from telling.alert_models import Alert, AlertChannel, AlertRule
from telling.alerts.kinds import KINDS
from telling.api.filters import AlertChannelFilters, AlertFilters, AlertRuleFilters
from telling.callbacks import MAX_URL_CHARACTERS

_TESTS = "telling.test_alertchannel"


class AlertRuleSerializer(StrictModel):
    threshold = serializers.DecimalField(max_digits=14, decimal_places=4, normalize_output=True, help_text="In `unit`.")
    unit = serializers.SerializerMethodField()
    channels = serializers.PrimaryKeyRelatedField(many=True, queryset=AlertChannel.objects.all(), required=False)
    firing = serializers.SerializerMethodField(help_text="For how many subjects it fires now.")

    class Meta:
        model = AlertRule
        fields = (
            "id",
            "name",
            "condition",
            "threshold",
            "unit",
            "window_s",
            "min_requests",
            "per_provider",
            "channels",
            "is_active",
            "firing",
        )

    def get_unit(self, row: AlertRule) -> str:
        return KINDS[row.condition].unit

    def get_firing(self, row: AlertRule) -> int:
        return row.alerts.filter(resolved_at=None).count()

    def _saved(self, row: Any, values: Mapping[str, Any]) -> Any:
        channels = values.get("channels")
        row = super()._saved(row, {name: value for name, value in values.items() if name != "channels"})
        if channels is not None:
            row.channels.set(channels)
        return row


class AlertChannelSerializer(StrictModel):
    address = serializers.CharField(source="shown_address", read_only=True, help_text="Without what must stay secret.")
    url = serializers.CharField(
        write_only=True, required=False, allow_blank=True, max_length=MAX_URL_CHARACTERS, help_text="Never shown again."
    )
    secret = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=alert_services.MAX_SECRET_CHARACTERS,
        help_text="What messages are signed with.",
    )

    class Meta:
        model = AlertChannel
        fields = ("id", "name", "kind", "address", "url", "secret", "recipients", "is_active", "created_at")

    def validate_kind(self, kind: str) -> str:
        if self.instance is not None and kind != self.instance.kind:
            raise serializers.ValidationError("This stays as it is: make another channel.")
        return kind

    def _saved(self, row: Any, values: Mapping[str, Any]) -> Any:
        sealed: dict[str, Any] = {name: values.get(name) for name in ("url", "secret")}
        for name, value in values.items():
            if name not in sealed:
                setattr(row, name, value)
        with in_body_words():
            return alert_services.save_channel(row, **sealed)


class AlertSerializer(Strict):
    id = serializers.IntegerField()
    rule = serializers.UUIDField(source="rule_id", allow_null=True, help_text="null: the rule was deleted.")
    rule_name = serializers.CharField()
    condition = serializers.CharField()
    subject = serializers.CharField()
    about = serializers.CharField(source="label")
    value = serializers.FloatField(help_text="The last one, in the unit of the condition.")
    sentence = serializers.CharField()
    firing = serializers.BooleanField(source="is_firing")
    started_at = serializers.DateTimeField()
    seen_at = serializers.DateTimeField()
    resolved_at = serializers.DateTimeField(allow_null=True)


class TriedSerializer(serializers.Serializer):
    channel = serializers.UUIDField(source="channel.pk")
    name = serializers.CharField(source="channel.name")
    ok = serializers.BooleanField()
    detail = serializers.CharField(source="sentence", help_text="What came back, in plain words.")


class AlertRuleViewSet(ModelViewSet):
    """When to tell whom. One alert fires for each subject that is beyond the threshold, once, and ends once."""

    queryset = AlertRule.objects.prefetch_related("channels")
    serializer_class = AlertRuleSerializer
    filterset_class = AlertRuleFilters
    keyset = "name"
    permission_for = {"test": _TESTS}

    @extend_schema(request=None, responses=TriedSerializer(many=True), filters=False)
    @action(detail=True, methods=["post"], pagination_class=None)
    def test(self, request: Request, pk: str) -> Response:
        """Really sends a test message to each of its channels, and says what came back."""
        return Response(TriedSerializer(alert_services.try_rule(self.get_object()), many=True).data)


class AlertChannelViewSet(ModelViewSet):
    """Whom alerts are told. Address and secret go in and never come out; left out of a change, they stay as they are."""

    queryset = AlertChannel.objects.all()
    serializer_class = AlertChannelSerializer
    filterset_class = AlertChannelFilters
    keyset = "name"
    permission_for = {"test": _TESTS}

    @extend_schema(request=None, responses=TriedSerializer)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Really sends a test message, and says what came back."""
        return Response(TriedSerializer(alert_services.try_channel(self.get_object())).data)


class AlertViewSet(ReadOnlyModelViewSet):
    """What fires now (`?firing=true`) and what did, the newest first."""

    queryset = Alert.objects.all()
    serializer_class = AlertSerializer
    filterset_class = AlertFilters
    keyset = "-started_at"
