"""Providers as REST reads and shows them. Secrets go in through `config` and never come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied

from core.config import MAX_PROBE_BUDGET_MICROS
from monitoring.api.bodies import Strict, in_body_words
from providers import services, states
from providers.adapters import registry
from providers.adapters.base import FormField
from providers.models import MAX_CA_CHARACTERS, Provider, ProviderKey, Visibility

# Column → where it stands in the body.
PATHS = {
    "base_url": "config.base_url",
    "options": "config",
    "api_key": "config.api_key",
    "rate_type": "rate_limit.type",
    "rate_capacity": "rate_limit.capacity",
    "rate_refill_per_s": "rate_limit.refill_rate",
    "tokens_per_minute": "rate_limit.tokens_per_minute",
    "breaker_fail_max": "breaker.fail_max",
    "breaker_reset_timeout_s": "breaker.reset_timeout_s",
    "breaker_max_reset_timeout_s": "breaker.max_reset_timeout_s",
    "breaker_failure_rate": "breaker.failure_rate",
    "breaker_window_s": "breaker.window_s",
    "breaker_min_calls": "breaker.min_calls",
    "breaker_keep_last": "breaker.keep_last",
    "connect_timeout_s": "timeouts.connect_s",
    "first_byte_timeout_s": "timeouts.first_byte_s",
    "idle_timeout_s": "timeouts.idle_s",
    "total_timeout_s": "timeouts.total_s",
}


class ConfigField(serializers.Field):
    """One object in the body, three things in the database: the address, the options, and sealed keys."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(source="*", **kwargs)

    def to_representation(self, provider: Provider) -> dict[str, Any]:
        return {"base_url": provider.base_url, **provider.options}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError("Write an object of names and values.")
        rest = dict(data)
        secrets = self._secrets(rest)
        values: dict[str, Any] = {} if secrets is None else {"secrets": secrets}
        replaced = not self.root.partial
        if "base_url" in rest or replaced:
            values["base_url"] = self._base_url(rest.pop("base_url", ""))
        kept = {} if replaced or self.parent.instance is None else self.parent.instance.options
        values["options"] = {name: value for name, value in {**kept, **rest}.items() if value is not None}
        kind = self._kind()
        if kind and (refusals := registry.refusals(kind, values["options"])):
            raise serializers.ValidationError(refusals)
        return values

    def _base_url(self, value: Any) -> str:
        if value is not None and not isinstance(value, str):
            raise serializers.ValidationError({"base_url": "Write the address as text."})
        return (value or "").strip()

    def _secrets(self, rest: dict[str, Any]) -> list[str] | None:
        """Takes the keys out of `rest`; None = none were given. Their values are in no message."""
        given = [name for name in self._secret_names() if name in rest]
        if len(given) > 1 and "api_keys" in given:
            raise serializers.ValidationError({"api_keys": "Give either one key or a list of them."})
        if not given:
            return None
        values = [rest.pop(name) for name in given]
        secrets = values[0] if given == ["api_keys"] else values
        if not isinstance(secrets, list) or not secrets or not all(isinstance(secret, str) for secret in secrets):
            raise serializers.ValidationError({given[0]: "Write a key as text, or api_keys as a list of such."})
        return secrets

    def _secret_names(self) -> list[str]:
        kind = self._kind()
        declared = [field.name for field in registry.form(kind) if field.secret] if kind else []
        return list(dict.fromkeys(["api_key", "api_keys", *declared]))

    def _kind(self) -> str:
        """The provider type that the body names, or the row has; "" for an unknown one."""
        kind = self.parent.initial_data.get("provider_type") or getattr(self.parent.instance, "provider_type", "")
        return kind if isinstance(kind, str) and kind in dict(registry.kinds()) else ""


class ConfigFieldSchema(OpenApiSerializerFieldExtension):
    """How the API's description shows `config`: what each provider type declares."""

    target_class = ConfigField

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "base_url": {"type": "string", "description": "Empty: the vendor's own address."},
            "api_key": {"type": "string", "writeOnly": True},
            "api_keys": {"type": "array", "items": {"type": "string"}, "writeOnly": True},
        }
        for kind, _ in registry.kinds():
            for field in registry.form(kind):
                shown = properties.setdefault(field.name, _shape(field))
                if field.help_text:
                    shown["description"] = f"{shown.get('description', '')}\n{kind}: {field.help_text}".strip()
        return {
            "type": "object",
            "description": "What this vendor type asks for: its address, its keys, and further options. Keys are never shown again.",
            "properties": properties,
            "additionalProperties": True,
        }


def _shape(field: FormField) -> dict[str, Any]:
    if field.mapping:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    return {"type": "string", "enum": [value for value, _ in field.choices]} if field.choices else {"type": "string"}


class RateLimitSerializer(Strict):
    type = serializers.ChoiceField(source="rate_type", choices=Provider.RateType.choices, required=False)
    capacity = serializers.FloatField(source="rate_capacity", required=False, help_text="Calls at once; 0, with a rate of 0 = no limit.")
    refill_rate = serializers.FloatField(source="rate_refill_per_s", required=False, help_text="Calls a second after that.")
    tokens_per_minute = serializers.IntegerField(required=False, allow_null=True, help_text="Of all its models together; null = no limit.")


class BreakerSerializer(Strict):
    fail_max = serializers.IntegerField(source="breaker_fail_max", required=False, help_text="Failures in a row that open it.")
    reset_timeout_s = serializers.FloatField(source="breaker_reset_timeout_s", required=False, help_text="Seconds until one trial call.")
    max_reset_timeout_s = serializers.FloatField(
        source="breaker_max_reset_timeout_s", required=False, help_text="Each failed trial doubles the wait, up to this."
    )
    failure_rate = serializers.FloatField(
        source="breaker_failure_rate", required=False, help_text="0 to 1: it also opens where this share of recent calls failed; 0 = off."
    )
    window_s = serializers.FloatField(source="breaker_window_s", required=False, help_text="How far back the share looks.")
    min_calls = serializers.IntegerField(source="breaker_min_calls", required=False, help_text="The share of fewer calls says nothing.")
    keep_last = serializers.BooleanField(
        source="breaker_keep_last", required=False, help_text="The wait for the only target left does not grow."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A first wait beyond the longest takes that one along, unless the body names both."""
        first_s, longest = attrs.get("breaker_reset_timeout_s"), "breaker_max_reset_timeout_s"
        if first_s is not None and longest not in attrs:
            row = getattr(self.parent, "instance", None) or Provider()
            attrs[longest] = max(first_s, getattr(row, longest))
        return attrs


class TimeoutsSerializer(Strict):
    connect_s = serializers.FloatField(source="connect_timeout_s", required=False)
    first_byte_s = serializers.FloatField(source="first_byte_timeout_s", required=False)
    idle_s = serializers.FloatField(source="idle_timeout_s", required=False)
    total_s = serializers.FloatField(source="total_timeout_s", required=False)


class KeySerializer(serializers.ModelSerializer):
    """All that may be known of a stored key."""

    state = serializers.SerializerMethodField()

    class Meta:
        model = ProviderKey
        fields = read_only_fields = ("id", "last4", "state")

    def get_state(self, key: ProviderKey) -> str:
        return "active" if key.is_active else "off"


class ProviderSerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    name = serializers.CharField(max_length=80)
    provider_type = serializers.CharField(max_length=40, help_text="Which wire this vendor speaks.")
    config = ConfigField(required=False)
    is_active = serializers.BooleanField(required=False)
    visibility = serializers.ChoiceField(choices=Visibility.choices, required=False)
    rate_limit = RateLimitSerializer(source="*", required=False)
    breaker = BreakerSerializer(source="*", required=False)
    timeouts = TimeoutsSerializer(source="*", required=False)
    max_concurrency = serializers.IntegerField(required=False, min_value=0)
    price_adjustment_bp = serializers.IntegerField(
        required=False, help_text="What we pay beside its prices, in hundredths of a per cent: -1500 is 15% less."
    )
    probe_budget_micros = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=MAX_PROBE_BUDGET_MICROS,
        help_text="What probes of its models may cost a day, in millionths of the reporting currency; 0 = there are none.",
    )
    ca_certificates = serializers.CharField(
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        max_length=MAX_CA_CHARACTERS,
        help_text="PEM of the authorities that may vouch for this server, and no others. Empty: those that the system trusts.",
    )
    drop_keys = serializers.BooleanField(
        required=False, write_only=True, help_text="Only for changes: the stored keys go. Needed where the address moves to another host."
    )
    keys = KeySerializer(many=True, read_only=True)

    def create(self, validated_data: dict[str, Any]) -> Provider:
        if validated_data.pop("drop_keys", False):
            raise serializers.ValidationError({"drop_keys": "A new provider has no stored keys to drop."})
        kind = validated_data["provider_type"]
        if kind in dict(registry.kinds()) and services.needs_key(kind) and not validated_data.get("secrets"):
            raise serializers.ValidationError({"config.api_key": "This vendor type needs a key."}, code="required")
        with in_body_words(PATHS):
            return services.create_provider(**validated_data)

    def update(self, instance: Provider, validated_data: dict[str, Any]) -> Provider:
        secrets = validated_data.pop("secrets", None)
        may = self.context["request"].user.has_perm
        if secrets is not None and not may("providers.rotate_providerkey"):
            raise PermissionDenied("You may change this provider, but not its keys.")
        if validated_data.pop("drop_keys", False) and secrets is None:
            if not may("providers.delete_providerkey"):
                raise PermissionDenied("You may change this provider, but not delete its keys.")
            secrets = []
        with in_body_words(PATHS):
            provider = services.update_provider(instance, validated_data, secrets)
        # Read with its keys before they changed.
        getattr(provider, "_prefetched_objects_cache", {}).clear()
        return provider


class SecretSerializer(Strict):
    """One key in plaintext, on its way in."""

    api_key = serializers.CharField(write_only=True, trim_whitespace=False, max_length=services.MAX_SECRET_CHARACTERS)


class NewKeySerializer(SecretSerializer):
    name = serializers.CharField(required=False, default="", allow_blank=True, max_length=80, write_only=True)


class KeyChangeSerializer(Strict):
    """What can be changed of a stored key besides its secret."""

    name = serializers.CharField(required=False, allow_blank=True, max_length=80)
    weight = serializers.IntegerField(required=False, help_text="Its share of the calls, 1 to 100.")
    is_active = serializers.BooleanField(required=False)


class KeyDetailSerializer(KeySerializer):
    class Meta:
        model = ProviderKey
        fields = read_only_fields = ("id", "last4", "state", "name", "weight")


class TestRequestSerializer(Strict):
    model = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=200,
        help_text="An alias, or the vendor's id. Left out: the first by priority.",
    )


class ConnectionCheckSerializer(serializers.Serializer):
    name = serializers.CharField()
    result = serializers.ChoiceField(choices=["pass", "fail", "not_offered"])
    detail = serializers.CharField()


class ConnectionReportSerializer(serializers.Serializer):
    ok = serializers.BooleanField()
    latency_ms = serializers.IntegerField()
    checks = ConnectionCheckSerializer(many=True)
    tokens_used = serializers.IntegerField(help_text="By the vendor's count, estimated where it gave none.")
    model = serializers.CharField(help_text='The vendor\'s id of the model that was tried; "" = none.')


class BreakerStateSerializer(serializers.Serializer):
    key_id = serializers.CharField(help_text='"" = a provider without keys.')
    last4 = serializers.CharField()
    model = serializers.CharField(help_text="The vendor's id.")
    state = serializers.CharField(help_text=f"One of {', '.join(states.BREAKER_STATES)}.")
    failures = serializers.IntegerField(help_text="In a row.")
    reason = serializers.CharField()
    next_try_at = serializers.DateTimeField(allow_null=True)
    processes = serializers.IntegerField(help_text="How many gateway processes say so.")


class RestSerializer(serializers.Serializer):
    model = serializers.CharField(help_text='The vendor\'s id; "" = every model.')
    reason = serializers.CharField()
    next_try_at = serializers.DateTimeField()


class KeyStatusSerializer(serializers.Serializer):
    id = serializers.CharField()
    last4 = serializers.CharField()
    state = serializers.CharField(help_text="One of active, resting, off.")
    weight = serializers.IntegerField()
    rests = RestSerializer(many=True)


class LimiterStatusSerializer(serializers.Serializer):
    type = serializers.CharField()
    capacity = serializers.FloatField()
    refill_rate = serializers.FloatField()
    max_concurrency = serializers.IntegerField()


class LatencySerializer(serializers.Serializer):
    p50 = serializers.IntegerField(allow_null=True)
    p95 = serializers.IntegerField(allow_null=True)


class ListingStatusSerializer(serializers.Serializer):
    reason = serializers.CharField()
    since = serializers.DateTimeField()
    processes = serializers.IntegerField(help_text="How many gateway processes say so.")


class FailedProbeSerializer(ListingStatusSerializer):
    model = serializers.CharField(help_text="The vendor's id.")


class ProbesStatusSerializer(serializers.Serializer):
    budget_micros = serializers.IntegerField(help_text="For a day, in the reporting currency.")
    spent_micros = serializers.IntegerField(help_text="Since 00:00 UTC.")
    currency = serializers.CharField()
    failed = FailedProbeSerializer(many=True, help_text="Models that did not answer, and are asked after others.")
    note = serializers.CharField(help_text='Why a probe that was due was not made; "" = none was left out.')


class ProviderStatusSerializer(serializers.Serializer):
    """What those may see who only look."""

    name = serializers.CharField()
    kind = serializers.CharField()
    active = serializers.BooleanField()
    breaker = serializers.CharField(help_text=f"The worst of all: {', '.join(states.BREAKER_STATES)}.")
    breakers = BreakerStateSerializer(many=True, help_text="Those that are not closed with nothing counted.")
    listing = ListingStatusSerializer(
        allow_null=True, help_text="Why its list of models could not be had while no calls went there; null = nothing speaks against it."
    )
    probes = ProbesStatusSerializer(allow_null=True, help_text="Of those that cost something; null = its budget for them is 0.")
    limiter = LimiterStatusSerializer()
    keys = KeyStatusSerializer(many=True)
    attempts = serializers.IntegerField(help_text="Calls of the last five minutes.")
    error_rate = serializers.FloatField(allow_null=True, help_text="0 to 1; null without calls.")
    latency_ms = LatencySerializer()
