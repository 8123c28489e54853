"""Models and prices as REST reads and shows them. Amounts are decimal strings per million tokens."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from rest_framework import serializers

from core.money import MAX_PRICE_PER_MILLION, plain
from models_registry import catalogue, services
from models_registry.models import MAX_PRICED_TOKENS, ExchangeRate, LLMModel, Price, Route, validate_currency
from monitoring.api.bodies import LimitsSerializer, Strict, StrictModel, in_body_words


class LLMModelSerializer(StrictModel):
    capabilities = serializers.ListField(
        child=serializers.CharField(max_length=60), required=False, max_length=50, help_text='E.g. ["tools", "images", "json"].'
    )
    rate_limit = LimitsSerializer(
        source="*", required=False, help_text="Ours, for this model at this provider; beyond it the next model of the alias is asked."
    )

    class Meta:
        model = LLMModel
        fields = (
            *("id", "provider", "model_id", "alias", "model_type", "is_active", "visibility", "priority"),
            *("context_window", "max_output_tokens", "capabilities", "quality"),
            *("unsupported_params", "over_long", "cache_ttl_s", "rate_limit", "tested", "tested_at"),
        )
        read_only_fields = ("tested", "tested_at")

    def update(self, instance: LLMModel, validated_data: dict[str, Any]) -> LLMModel:
        if "is_active" in validated_data:
            services.keep_from_sync(instance)
        return super().update(instance, validated_data)


class RouteSerializer(StrictModel):
    """How long each part may be is the row's affair, which says it as a sentence."""

    targets = serializers.ListField(
        child=serializers.CharField(),
        help_text="Aliases of models, in the order of `strategy`; those of one alias by their `priority`.",
    )
    weights = serializers.DictField(
        child=serializers.IntegerField(),
        required=False,
        help_text='For the strategy `weighted`: alias → 1 to 1000, e.g. {"gpt-4o": 3}. Without one: 1.',
    )
    fallbacks = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Aliases of models, tried one after the other when the targets failed."
    )
    task_types = serializers.ListField(
        child=serializers.CharField(), required=False, help_text='Requests for "auto" with one of these come here, and queued tasks of it.'
    )

    class Meta:
        model = Route
        fields = (
            *("id", "alias", "description", "is_active", "visibility", "targets", "strategy", "weights", "fallbacks", "task_types"),
            *("degrade_to", "fixed_answer", "cache_ttl_s"),
        )


def _amount(*, required: bool, help_text: str) -> serializers.DecimalField:
    return serializers.DecimalField(
        max_digits=13, decimal_places=6, min_value=0, max_value=MAX_PRICE_PER_MILLION, required=required, help_text=help_text
    )


class PerMillionSerializer(Strict):
    input = _amount(required=True, help_text='E.g. "2.50".')
    cached_input = _amount(required=False, help_text="Left out: as input.")
    cache_write = _amount(required=False, help_text="Left out: as input.")
    output = _amount(required=True, help_text='E.g. "10.00".')
    cache_write_1h = _amount(required=False, help_text="Written to a cache that lives an hour. Left out: as cache_write.")
    reasoning = _amount(required=False, help_text="Left out: as output.")
    input_audio = _amount(required=False, help_text="Left out: as input.")
    input_image = _amount(required=False, help_text="Left out: as input.")
    output_audio = _amount(required=False, help_text="Left out: as output.")
    output_image = _amount(required=False, help_text="Left out: as output.")

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return {"per_million": super().to_internal_value(data)}

    def to_representation(self, price: Price) -> dict[str, str]:
        amounts = {bucket: getattr(price, f"{bucket}_micros") for bucket in services.ALL_BUCKETS}
        return {bucket: plain(micros) for bucket, micros in amounts.items() if micros is not None}


class PriceSerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    model = serializers.PrimaryKeyRelatedField(queryset=LLMModel.objects.all(), pk_field=serializers.UUIDField())
    service_tier = serializers.ChoiceField(
        choices=Price.ServiceTier.choices, required=False, help_text='"" = every tier without a price of its own.'
    )
    min_input_tokens = serializers.IntegerField(
        required=False, min_value=0, max_value=MAX_PRICED_TOKENS, help_text="For requests with so many tokens of input or more."
    )
    currency = serializers.CharField(max_length=3, validators=[validate_currency])
    valid_from = serializers.DateTimeField(required=False, help_text="Left out: from now on.")
    valid_to = serializers.DateTimeField(read_only=True, allow_null=True, help_text="null = still in force.")
    per_million = PerMillionSerializer(source="*")
    source = serializers.CharField(  # type: ignore[assignment]  # a field of that name, not the attribute of Field
        required=False, allow_blank=True, max_length=200, help_text="Where the figures come from."
    )

    def create(self, validated_data: dict[str, Any]) -> Price:
        with in_body_words():
            return services.set_price(**validated_data)


class ExchangeRateSerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    base = serializers.CharField(max_length=3, validators=[validate_currency])
    quote = serializers.CharField(max_length=3, validators=[validate_currency], help_text="The reporting currency is LLM_CURRENCY.")
    rate = serializers.CharField(max_length=20, help_text='Units of `quote` for one of `base`, as text, e.g. "0.1404"; up to ten decimals.')
    valid_from = serializers.DateTimeField(required=False, help_text="Left out: from now on.")
    source = serializers.CharField(  # type: ignore[assignment]  # a field of that name, not the attribute of Field
        required=False, allow_blank=True, max_length=200, help_text="Where the figure comes from."
    )

    def create(self, validated_data: dict[str, Any]) -> ExchangeRate:
        with in_body_words():
            return services.set_exchange_rate(**validated_data)


class AcceptField(serializers.Field):
    """true, false, or the ids of the models whose proposals are taken."""

    def to_internal_value(self, data: Any) -> bool | dict[str, tuple[str, ...]]:
        if isinstance(data, bool):
            return data
        if not isinstance(data, list) or not all(isinstance(model_id, str) for model_id in data):
            raise serializers.ValidationError("Write true, false, or a list of the vendor's model ids.")
        return dict.fromkeys(data, catalogue.FIELDS)

    def to_representation(self, value: Any) -> Any:
        return value


class AcceptFieldSchema(OpenApiSerializerFieldExtension):
    target_class = AcceptField

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"oneOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}], "default": False}


class SyncRequestSerializer(Strict):
    apply = serializers.BooleanField(required=False, default=False, help_text="false: only show what would change.")
    accept_proposals = AcceptField(
        required=False, default=False, help_text="Which proposals are taken with it: all, none, or those of the models listed here."
    )


class ProposalSerializer(serializers.Serializer):
    """What the offline catalogue would fill in where a model has nothing of its own: null, [] and {} = nothing."""

    model_id = serializers.CharField()
    context_window = serializers.IntegerField(allow_null=True)
    max_output_tokens = serializers.IntegerField(allow_null=True)
    capabilities = serializers.ListField(child=serializers.CharField())
    per_million = serializers.DictField(child=serializers.CharField(), help_text="By bucket, as in a price; {} where there is a price.")
    currency = serializers.CharField()
    source = serializers.CharField(  # type: ignore[assignment]  # a field of that name, not the attribute of Field
        help_text="Which catalogue, and how old its data are."
    )


class SyncDiffSerializer(serializers.Serializer):
    new = serializers.ListField(child=serializers.CharField())
    gone = serializers.ListField(child=serializers.CharField())
    changed = serializers.ListField(child=serializers.CharField())
    applied = serializers.BooleanField()
    proposals = ProposalSerializer(many=True)
