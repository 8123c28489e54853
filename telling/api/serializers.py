"""Webhooks and their secrets as REST shows them. A secret is only in the answer to its creation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from access.api.serializers import TeamField
from monitoring.api.bodies import Strict
from telling import services
from telling.models import Webhook, WebhookSecret

_MAX_OVERLAP_S = 30 * 86_400


class WebhookSerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    webhook_id = serializers.CharField(source="message_id", read_only=True, help_text="The header webhook-id of every try.")
    team = serializers.UUIDField(source="team_id", read_only=True, allow_null=True)
    task_id = serializers.CharField(source="task.public_id", read_only=True, allow_null=True, help_text="null: it tells of an alert.")
    channel = serializers.UUIDField(source="channel_id", read_only=True, allow_null=True, help_text="Of an alert.")
    event_type = serializers.CharField(read_only=True)
    url = serializers.CharField(read_only=True)
    status = serializers.ChoiceField(choices=Webhook.Status.choices, read_only=True)
    tries = serializers.IntegerField(read_only=True)
    next_try_at = serializers.SerializerMethodField(help_text="null: it will not be tried by itself.")
    last_status = serializers.IntegerField(read_only=True, allow_null=True)
    last_error = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    ended_at = serializers.DateTimeField(read_only=True, allow_null=True)

    def get_next_try_at(self, row: Webhook) -> datetime | None:
        return datetime.fromtimestamp(row.next_at, UTC) if row.status == Webhook.Status.PENDING else None


class TrySerializer(serializers.Serializer):
    number = serializers.IntegerField()
    at = serializers.DateTimeField()
    duration_ms = serializers.IntegerField()
    status_code = serializers.IntegerField(allow_null=True)
    error = serializers.CharField()


class WholeWebhookSerializer(WebhookSerializer):
    """With what was sent, and what came of each try."""

    body = serializers.CharField(read_only=True)
    history = TrySerializer(many=True, read_only=True)


class WebhookSecretSerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    team = TeamField("telling.add_webhooksecret", allow_null=True, help_text="null: of the tasks that people submit.")
    overlap_s = serializers.FloatField(
        required=False, min_value=0, max_value=_MAX_OVERLAP_S, write_only=True, help_text="So long the one before it signs too."
    )
    created_at = serializers.DateTimeField(read_only=True)
    retires_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="null: it is the current one.")


class NewWebhookSecretSerializer(WebhookSecretSerializer):
    """The answer to a creation: the only one that ever holds the secret."""

    secret = serializers.CharField(read_only=True, help_text="Shown once.")

    def validate_team(self, team: Any) -> Any:
        if team is None and not self.context["request"].user.has_perm("telling.add_webhooksecret"):
            raise ValidationError([ErrorDetail("Name a team of yours.", code="null")])
        return team

    def create(self, validated_data: dict[str, Any]) -> WebhookSecret:
        row, plaintext = services.new_secret(validated_data["team"], overlap_s=validated_data.get("overlap_s"))
        row.plaintext = plaintext  # type: ignore[attr-defined]  # on this instance alone, for this answer
        return row

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return {**WebhookSecretSerializer(instance, context=self.context).data, "secret": instance.plaintext}


class TicketSerializer(serializers.Serializer):
    ticket = serializers.CharField(help_text="For the subprotocol ticket.<ticket>, or the first message.")
    expires_in = serializers.IntegerField(help_text="Seconds; it opens one socket, once.")
