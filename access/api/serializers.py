"""Teams, members, grants and API keys as REST reads and shows them. The key itself is only in the answer to its creation."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError as Refusal
from django.db.models import QuerySet
from rest_framework import serializers

from access import scope, services
from access.api.budgets import AmountField
from access.budget_rules import limit_of
from access.models import ApiKey, Budget, Grant, Team, TeamMember
from models_registry.models import LLMModel, PromptTemplate, Route
from monitoring.api.bodies import LimitsSerializer, Strict, StrictModel, in_body_words
from providers.models import Provider

_PATHS = {
    "allowed_models": "models",
    **{limit: f"rate_limit.{limit}" for limit in ("requests_per_minute", "tokens_per_minute", "max_concurrency")},
}


class TeamSerializer(StrictModel):
    rate_limit = LimitsSerializer(source="*", required=False, help_text="Of all keys of the team together.")

    class Meta:
        model = Team
        fields = ("id", "name", "is_active", "rate_limit", "price_adjustment_bp", "scopes", "max_key_days")

    def validate_scopes(self, scopes: list[str] | None) -> list[str] | None:
        try:
            return None if scopes is None else services.checked_scopes(scopes)
        except Refusal as refusal:  # without the field's name, which a field's own check is under already
            raise serializers.ValidationError(refusal.messages) from refusal


class TeamField(serializers.PrimaryKeyRelatedField):
    """A team in which the person who asks has `permission`; every other is one that does not exist."""

    def __init__(self, permission: str, **kwargs: Any) -> None:
        self._permission = permission
        super().__init__(pk_field=serializers.UUIDField(), queryset=Team.objects.all(), **kwargs)

    def get_queryset(self) -> QuerySet[Team]:
        teams = scope.visible(self.context["request"].user, Team.objects.all(), self._permission)
        row = getattr(self.parent, "instance", None)
        return teams if row is None else teams | Team.objects.filter(pk=row.team_id)


class MemberSerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    team = TeamField("access.add_teammember")
    user = serializers.SlugRelatedField(slug_field="username", queryset=get_user_model().objects.all(), help_text="By name.")
    role = serializers.ChoiceField(choices=TeamMember._meta.get_field("role").choices)  # type: ignore[arg-type]

    def create(self, validated_data: dict[str, Any]) -> TeamMember:
        return self._saved(TeamMember(), validated_data)

    def update(self, instance: TeamMember, validated_data: dict[str, Any]) -> TeamMember:
        return self._saved(instance, validated_data)

    def _saved(self, row: TeamMember, values: dict[str, Any]) -> TeamMember:
        for name, value in values.items():
            setattr(row, name, value)
        with in_body_words():
            return services.save_member(row, self.context["request"].user)


class GrantSerializer(Strict):
    """Exactly one holder and one of what is granted; the others are null."""

    id = serializers.UUIDField(read_only=True)
    team = serializers.PrimaryKeyRelatedField(
        queryset=Team.objects.all(), pk_field=serializers.UUIDField(), required=False, allow_null=True
    )
    user = serializers.SlugRelatedField(
        slug_field="username", queryset=get_user_model().objects.all(), required=False, allow_null=True, help_text="By name."
    )
    provider = serializers.PrimaryKeyRelatedField(
        queryset=Provider.objects.all(), pk_field=serializers.UUIDField(), required=False, allow_null=True
    )
    model = serializers.PrimaryKeyRelatedField(
        queryset=LLMModel.objects.all(), pk_field=serializers.UUIDField(), required=False, allow_null=True
    )
    route = serializers.PrimaryKeyRelatedField(
        queryset=Route.objects.all(), pk_field=serializers.UUIDField(), required=False, allow_null=True
    )
    prompt = serializers.PrimaryKeyRelatedField(
        queryset=PromptTemplate.objects.all(), pk_field=serializers.UUIDField(), required=False, allow_null=True
    )
    created_at = serializers.DateTimeField(read_only=True)

    def create(self, validated_data: dict[str, Any]) -> Grant:
        with in_body_words():
            return services.save_grant(Grant(**validated_data), self.context["request"].user)


class MaxSpendSerializer(Strict):
    limit = AmountField(help_text='Decimal text, e.g. "10.00".')
    currency = serializers.CharField(max_length=3)
    period = serializers.ChoiceField(choices=Budget.Period.choices, required=False, default=Budget.Period.TOTAL)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**attrs, "limit": limit_of(Budget.Kind.MONEY, attrs["limit"])}
        except ValueError as refused:
            raise serializers.ValidationError({"limit": str(refused)}) from None


class ApiKeySerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    prefix = serializers.CharField(read_only=True, help_text="The first characters, to recognise the key by.")
    name = serializers.CharField(max_length=120)
    team = TeamField("access.add_apikey")
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=services.SCOPES), required=False, allow_empty=False)
    models = serializers.ListField(
        child=serializers.CharField(max_length=200),
        source="allowed_models",
        required=False,
        allow_null=True,
        help_text="Aliases of models and routes the key may call; null = all that are open to its team.",
    )
    rate_limit = LimitsSerializer(source="*", required=False)
    source_networks = serializers.ListField(
        child=serializers.CharField(max_length=50),
        required=False,
        allow_null=True,
        help_text='Networks it is accepted from, e.g. ["10.1.0.0/16"]; null = anywhere.',
    )
    store_bodies = serializers.BooleanField(required=False, help_text="Keeps what is asked and answered, word for word, for some days.")
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    revoked_at = serializers.DateTimeField(read_only=True, allow_null=True)
    created_at = serializers.DateTimeField(read_only=True)

    def update(self, instance: ApiKey, validated_data: dict[str, Any]) -> ApiKey:
        with in_body_words(_PATHS):
            return services.update_api_key(instance, validated_data, self.context["request"].user)


class NewApiKeySerializer(ApiKeySerializer):
    """The answer to a creation: the only one that ever holds the key."""

    key = serializers.CharField(read_only=True, help_text="Shown once.")
    max_spend = MaxSpendSerializer(
        required=False, allow_null=True, write_only=True, help_text="A hard budget of money that is made with the key; see /llm/budgets."
    )

    def create(self, validated_data: dict[str, Any]) -> ApiKey:
        if (most := validated_data.pop("max_spend", None)) is not None:
            validated_data["max_spend"] = services.MaxSpend(**most)
        with in_body_words(_PATHS):
            row, plaintext = services.create_api_key(**validated_data)
        row.key = plaintext  # type: ignore[attr-defined]  # on this instance alone, for this answer
        return row
