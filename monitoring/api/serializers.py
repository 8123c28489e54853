"""Rows of the ledger as REST shows them: names a caller knows, money as plain strings."""

from __future__ import annotations

from rest_framework import serializers

from core.money import plain
from monitoring.models import RequestLog, UsageRecord


class _Log(serializers.ModelSerializer):
    team = serializers.CharField(source="team_name", read_only=True)
    key = serializers.CharField(source="key_name", read_only=True)
    provider = serializers.CharField(source="provider_name", read_only=True)
    model = serializers.CharField(source="alias", read_only=True)
    cost = serializers.SerializerMethodField()

    def get_cost(self, row: UsageRecord | RequestLog) -> str | None:
        """None = not known, which is not the same as free."""
        return None if row.cost_micros is None else plain(row.cost_micros)


class UsageRecordSerializer(_Log):
    class Meta:
        model = UsageRecord
        fields = read_only_fields = (
            *("request_id", "attempt", "started_at", "team", "team_id", "key", "key_id", "provider", "provider_id", "provider_key_id"),
            *("model", "model_id", "status", "error_code", "vendor_status", "finish_reason", "streamed"),
            *("input_tokens", "cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens", "input_audio_tokens"),
            *("input_image_tokens", "output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens", "usage_source"),
            *("cost", "currency", "price_id", "duration_ms", "first_token_ms", "config_version"),
        )


class RequestLogSerializer(_Log):
    class Meta:
        model = RequestLog
        fields = read_only_fields = (
            *("request_id", "started_at", "team", "team_id", "key", "key_id", "dialect", "provider", "model", "model_id", "streamed"),
            *("status_code", "error_code", "error_message", "attempts", "total_tokens", "cost", "currency"),
            *("duration_ms", "first_token_ms", "config_version", "dropped"),
        )


class UsageSumSerializer(serializers.Serializer):
    """One row; those of a grouping also name their group: day, team, key, provider, model."""

    requests = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment]  # a field of that name
    input_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    cache_write_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    cost = serializers.DictField(child=serializers.CharField(), help_text='By currency, e.g. {"USD": "0.0123"}.')


class UsageStatsSerializer(serializers.Serializer):
    group_by = serializers.ListField(child=serializers.CharField())
    rows = UsageSumSerializer(many=True)
    totals = UsageSumSerializer()
