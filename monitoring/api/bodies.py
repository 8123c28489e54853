"""How REST bodies are read: nothing unknown, nothing read-only, and a service's refusal in the words of the body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from django.core.exceptions import ValidationError as Refusal
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.settings import api_settings

_MAX_INTEGER = 2_147_483_647


class Strict(serializers.Serializer):
    """Refuses fields it does not know and fields that only come out: a typo or a hopeful `id` is never dropped in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)
        errors = {name: [self._reason(name)] for name in data if name not in self.fields or self.fields[name].read_only}
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**cast(dict[str, Any], error.detail), **errors}) from error
        if errors:
            raise serializers.ValidationError(errors)
        return value

    def _reason(self, name: str) -> ErrorDetail:
        if name in self.fields:
            return ErrorDetail("This field cannot be set.", code="read_only")
        return ErrorDetail("This field is not known.", code="unknown")


def _limit(help_text: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=_MAX_INTEGER, help_text=f"{help_text}; null = none."
    )


class LimitsSerializer(Strict):
    """What a key, a team or a model may do: columns of these names."""

    requests_per_minute = _limit("Requests a minute")
    tokens_per_minute = _limit("Tokens a minute")
    max_concurrency = _limit("Requests at once")


class StrictModel(Strict, serializers.ModelSerializer):
    """Validates the whole row as the admin does, besides what the fields themselves say."""

    def create(self, validated_data: dict[str, Any]) -> Any:
        return self._saved(self.Meta.model(), validated_data)  # type: ignore[misc]

    def update(self, instance: Any, validated_data: dict[str, Any]) -> Any:
        return self._saved(instance, validated_data)

    def _saved(self, row: Any, values: Mapping[str, Any]) -> Any:
        for name, value in values.items():
            setattr(row, name, value)
        with in_body_words():
            row.full_clean()
        row.save()
        return row


@contextmanager
def in_body_words(paths: Mapping[str, str] | None = None) -> Iterator[None]:
    """A ValidationError of a service or model becomes a 400 that names the body's field; `paths` maps column → field."""
    try:
        yield
    except Refusal as refusal:
        raise serializers.ValidationError(_by_path(refusal, paths or {})) from refusal


def _by_path(refusal: Refusal, paths: Mapping[str, str]) -> dict[str, list[ErrorDetail]]:
    by_column = refusal.error_dict if hasattr(refusal, "error_dict") else {"__all__": refusal.error_list}
    named = {"__all__": api_settings.NON_FIELD_ERRORS_KEY, **paths}
    return {
        named.get(column, column): [ErrorDetail(text, code=error.code or "invalid") for error in errors for text in error.messages]
        for column, errors in by_column.items()
    }
