"""Rows of the ledger as REST shows them: names a caller knows, money as plain strings."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from core.money import plain
from monitoring.models import RequestLog, UsageRecord


@extend_schema_field(serializers.CharField)
class Micros(serializers.Field):
    """Micro-units as a plain decimal; None = not known, which is not the same as free."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(read_only=True, allow_null=True, **kwargs)

    def to_representation(self, value: int) -> str:
        return plain(value)


class _Log(serializers.ModelSerializer):
    team = serializers.CharField(source="team_name", read_only=True)
    key = serializers.CharField(source="key_name", read_only=True)
    provider = serializers.CharField(source="provider_name", read_only=True)
    model = serializers.CharField(source="alias", read_only=True)
    user = serializers.CharField(source="end_user", read_only=True)
    cost = Micros(source="cost_micros")


class UsageRecordSerializer(_Log):
    cost_reporting = Micros(source="cost_reporting_micros")
    charged = Micros(source="charged_micros")

    class Meta:
        model = UsageRecord
        fields = read_only_fields = (
            *("request_id", "attempt", "started_at", "team", "team_id", "key", "key_id", "provider", "provider_id", "provider_key_id"),
            *("model", "model_id", "status", "error_code", "vendor_status", "finish_reason", "streamed"),
            *("input_tokens", "cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens", "input_audio_tokens"),
            *("input_image_tokens", "output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens", "usage_source"),
            "usage_refused",
            *("cost", "currency", "price_id", "cost_reporting", "charged", "reporting_currency", "exchange_rate"),
            *("duration_ms", "first_token_ms", "config_version", "user", "task_type", "tag"),
        )


class RequestLogSerializer(_Log):
    prompt = serializers.CharField(source="prompt_name", read_only=True, help_text="The template that was filled in; empty = none.")
    cache = serializers.ChoiceField(
        choices=RequestLog.Cache.choices, allow_blank=True, read_only=True, help_text="Empty: the cache is off."
    )
    saved = Micros(source="saved_micros")

    class Meta:
        model = RequestLog
        fields = read_only_fields = (
            *("request_id", "started_at", "team", "team_id", "key", "key_id", "dialect", "provider", "model", "model_id", "streamed"),
            *("status_code", "error_code", "error_message", "attempts", "total_tokens", "cost", "currency"),
            *("cache", "saved", "duration_ms", "first_token_ms", "config_version", "dropped", "user", "task_type", "tag"),
            *("prompt", "prompt_version", "trace_id", "replayed"),
        )


class _CandidateSerializer(serializers.Serializer):
    place = serializers.IntegerField(allow_null=True, help_text="When it was to be asked, from 1; null = rejected.")
    alias = serializers.CharField()
    provider = serializers.CharField()
    model = serializers.CharField(help_text="The vendor's name for it.")
    stage = serializers.CharField(help_text="Who named it: a route, its fallbacks, the request; all of one stage come before the next.")
    strategy = serializers.CharField(help_text="By which those of one stage were put in order.")
    rejected = serializers.BooleanField()
    reason = serializers.CharField()


class _AttemptSerializer(serializers.Serializer):
    attempt = serializers.IntegerField()
    alias = serializers.CharField()
    provider = serializers.CharField()
    model = serializers.CharField()
    status = serializers.CharField()
    error_code = serializers.CharField()
    vendor_status = serializers.IntegerField()
    finish_reason = serializers.CharField()
    started_at = serializers.DateTimeField()
    duration_ms = serializers.IntegerField()
    first_token_ms = serializers.IntegerField(allow_null=True)


class ExplanationSerializer(serializers.Serializer):
    """Why this model: who there was to choose from, the reason for each place and each rejection, and what became of it."""

    request_id = serializers.CharField()
    asked = serializers.CharField(help_text="The model as the request named it, e.g. auto.")
    task_type = serializers.CharField()
    config_version = serializers.IntegerField()
    status_code = serializers.IntegerField()
    error = serializers.DictField(child=serializers.CharField(), allow_null=True, help_text="`code` and `message` of a failed request.")
    answered_by = serializers.DictField(child=serializers.CharField(), allow_null=True, help_text="`provider` and `model`.")
    chosen = serializers.BooleanField(help_text="false: the request named its model, and the candidates are those that were asked.")
    needs = serializers.ListField(child=serializers.CharField(), help_text="Of tools, json, json_schema, images.")
    input_tokens = serializers.IntegerField(allow_null=True, help_text="As estimated before the call.")
    output_tokens = serializers.IntegerField(allow_null=True, help_text="As assumed for the comparison.")
    draw = serializers.FloatField(allow_null=True, help_text="The chance that a weighted choice used, 0 to below 1.")
    candidates = _CandidateSerializer(many=True)
    attempts = _AttemptSerializer(many=True)


_BY_CURRENCY = 'By currency, e.g. {"USD": "0.0123"}.'


def _money(help_text: str = _BY_CURRENCY) -> serializers.DictField:
    return serializers.DictField(child=serializers.CharField(), help_text=help_text)


class _SumSerializer(serializers.Serializer):
    """One row; those of a grouping also name their group: hour, day, team, key, user, provider, model, task_type, tag, status."""

    requests = serializers.IntegerField(help_text="That a vendor was asked for or that were answered, without `refused`.")
    attempts = serializers.IntegerField()
    unpriced_attempts = serializers.IntegerField(help_text="Whose price is unknown; their cost is in no sum.")
    unconverted_attempts = serializers.IntegerField(help_text="Whose cost in the reporting currency is unknown.")
    cost = _money()


class UsageSumSerializer(_SumSerializer):
    errors = serializers.IntegerField(help_text="Requests that failed.")  # type: ignore[assignment]  # a field of that name
    refused = serializers.IntegerField(help_text="Requests refused before a vendor was asked; they belong to no model.")
    failed_attempts = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    cache_write_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    p50_ms = serializers.IntegerField(allow_null=True, help_text="Estimated from sums by size of duration.")
    p95_ms = serializers.IntegerField(allow_null=True)
    first_token_p50_ms = serializers.IntegerField(allow_null=True)
    first_token_p95_ms = serializers.IntegerField(allow_null=True)


class CostSumSerializer(_SumSerializer):
    cost_reporting = _money("The cost in the reporting currency.")
    charged = _money("What teams owe, in the reporting currency.")
    cost_per_1k_answers = _money("All cost, by a thousand requests that were answered.")
    cached_share = serializers.FloatField(allow_null=True, help_text="Of the tokens that went in, those that were cached; 0 to 1.")


class _StatsSerializer(serializers.Serializer):
    group_by = serializers.ListField(child=serializers.CharField())
    since = serializers.DateTimeField(help_text="The whole hour from which was summed.")
    until = serializers.DateTimeField(help_text="The whole hour up to which was summed.")


class UsageStatsSerializer(_StatsSerializer):
    rows = UsageSumSerializer(many=True)
    totals = UsageSumSerializer()


class CostStatsSerializer(_StatsSerializer):
    rows = CostSumSerializer(many=True)
    totals = CostSumSerializer()


class _BodySerializer(serializers.Serializer):
    text = serializers.CharField(help_text="The first bytes, as text.")
    bytes = serializers.IntegerField(help_text="Of the whole body.")
    cut = serializers.BooleanField(help_text="Whether `text` is only its beginning.")


class _HeaderSerializer(serializers.Serializer):
    name = serializers.CharField()
    value = serializers.CharField(help_text="[redacted] where it could be a secret.")


class _AttemptHeadersSerializer(serializers.Serializer):
    attempt = serializers.IntegerField()
    status = serializers.IntegerField(help_text="HTTP status of the vendor; 0 = there was no answer.")
    headers = _HeaderSerializer(many=True)


class _HeadersSerializer(serializers.Serializer):
    request = _HeaderSerializer(many=True, help_text="Sent by the client.")
    response = _HeaderSerializer(many=True, help_text="Sent to the client.")
    attempts = _AttemptHeadersSerializer(many=True, help_text="Of what vendors answered.")


class RequestBodiesSerializer(serializers.Serializer):
    request_id = serializers.CharField()
    request = _BodySerializer()
    response = _BodySerializer()
    headers = _HeadersSerializer(allow_null=True, help_text="null: of a request from before headers were kept.")
