"""Teams and API keys as REST reads and shows them. The key itself is only in the answer to its creation."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from access import services
from access.models import ApiKey, Team
from monitoring.api.bodies import LimitsSerializer, Strict, StrictModel, in_body_words

_PATHS = {
    "allowed_models": "models",
    **{limit: f"rate_limit.{limit}" for limit in ("requests_per_minute", "tokens_per_minute", "max_concurrency")},
}


class TeamSerializer(StrictModel):
    rate_limit = LimitsSerializer(source="*", required=False, help_text="Of all keys of the team together.")

    class Meta:
        model = Team
        fields = ("id", "name", "is_active", "rate_limit")


class ApiKeySerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    prefix = serializers.CharField(read_only=True, help_text="The first characters, to recognise the key by.")
    name = serializers.CharField(max_length=120)
    team = serializers.PrimaryKeyRelatedField(queryset=Team.objects.all(), pk_field=serializers.UUIDField())
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=services.SCOPES), required=False, allow_empty=False)
    models = serializers.ListField(
        child=serializers.CharField(max_length=200),
        source="allowed_models",
        required=False,
        allow_null=True,
        help_text="Aliases the key may call; null = all.",
    )
    rate_limit = LimitsSerializer(source="*", required=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    revoked_at = serializers.DateTimeField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)

    def update(self, instance: ApiKey, validated_data: dict[str, Any]) -> ApiKey:
        with in_body_words(_PATHS):
            return services.update_api_key(instance, validated_data)


class NewApiKeySerializer(ApiKeySerializer):
    """The answer to a creation: the only one that ever holds the key."""

    key = serializers.CharField(read_only=True, help_text="Shown once.")

    def create(self, validated_data: dict[str, Any]) -> ApiKey:
        with in_body_words(_PATHS):
            row, plaintext = services.create_api_key(**validated_data)
        row.key = plaintext  # type: ignore[attr-defined]  # on this instance alone, for this answer
        return row
