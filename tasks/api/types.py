"""Types of tasks over REST: those that people add."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.viewsets import ModelViewSet

from monitoring.api.bodies import StrictModel
from monitoring.api.filters import StrictFilters
from tasks.models import TaskType


class TaskTypeFilters(StrictFilters):
    class Meta:
        model = TaskType
        fields = ["name", "is_active", "prompt"]


class SchemaSerializer(serializers.JSONField):
    """An object, which the row looks at."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("Write a JSON schema, an object, or null for a text.")
        return super().to_internal_value(data)


class TaskTypeSerializer(StrictModel):
    result_schema = SchemaSerializer(
        required=False, allow_null=True, help_text="JSON schema that every result follows, of an object; null = the result is a text."
    )

    class Meta:
        model = TaskType
        fields = (
            *("id", "name", "description", "is_active", "prompt", "prompt_version", "result_schema"),
            *("model", "max_tokens", "temperature", "timeout_s", "max_concurrency"),
        )


class TaskTypeViewSet(ModelViewSet):
    """Types of tasks beside the shipped ones. `data` of their tasks are the variables of the prompt template; the name never changes.

    A task takes with it what its type says when it is submitted: a change, or the end of a type, changes no task that waits.
    """

    queryset = TaskType.objects.all()
    serializer_class = TaskTypeSerializer
    filterset_class = TaskTypeFilters
    keyset = "name"
