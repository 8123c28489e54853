"""Shapes of /api/v1/tasks, for the schema; bodies are read by `tasks.service`."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from tasks.kinds import KINDS
from tasks.states import PRIORITIES, Status


class ConfigBody(serializers.Serializer):
    timeout = serializers.FloatField(required=False, help_text="Seconds for one attempt; default LLM_TASK_TIMEOUT.")
    deadline = serializers.FloatField(required=False, help_text="Seconds until it must have begun; without one it just waits.")
    model = serializers.CharField(required=False, help_text="An alias or provider/model; default: the route named like the type.")
    max_attempts = serializers.IntegerField(required=False, min_value=1, max_value=10)
    temperature = serializers.FloatField(required=False)
    max_tokens = serializers.IntegerField(required=False)
    cache_enabled = serializers.BooleanField(required=False, help_text="False: neither given from the gateway's cache nor kept there.")


_TEMPLATE = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "version": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        "variables": {"type": "object", "additionalProperties": {}},
    },
    "required": ["id"],
}


@extend_schema_field({"oneOf": [{"type": "string"}, _TEMPLATE]})
class PromptBody(serializers.JSONField):
    """As in `tasks.service.Submission`."""


class TaskBody(serializers.Serializer):
    type = serializers.CharField(max_length=60, help_text=f"One of {', '.join(KINDS)}, or one that an administrator has added.")
    prompt = PromptBody(required=False, help_text="A text, or a prompt template by its name.")
    data = serializers.DictField(  # type: ignore[assignment]  # a field of that name
        required=False,
        help_text="What it is about; each type has its own fields, and those of an added one are the variables of its prompt.",
    )
    priority = serializers.ChoiceField(choices=list(PRIORITIES), required=False)
    config = ConfigBody(required=False)
    callback_url = serializers.CharField(required=False)


class BatchBody(serializers.Serializer):
    tasks = TaskBody(many=True)


class Submitted(serializers.Serializer):
    task_id = serializers.CharField()
    status = serializers.ChoiceField(choices=Status.choices)


class BatchSubmitted(serializers.Serializer):
    batch_id = serializers.UUIDField()
    tasks = Submitted(many=True)


class ErrorShown(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()


class TaskShown(serializers.Serializer):
    task_id = serializers.CharField()
    type = serializers.CharField()
    status = serializers.ChoiceField(choices=Status.choices)
    priority = serializers.ChoiceField(choices=list(PRIORITIES))
    result = serializers.DictField(allow_null=True)
    error = ErrorShown(allow_null=True)
    attempts = serializers.IntegerField()
    request_id = serializers.CharField(allow_null=True, help_text="Of the last request to a model: its log has attempts and costs.")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class EventShown(serializers.Serializer):
    seq = serializers.IntegerField()
    status = serializers.ChoiceField(choices=Status.choices)
    attempt = serializers.IntegerField()
    note = serializers.CharField()
    at = serializers.DateTimeField()
