"""Budgets as REST reads and shows them. Money is decimal text, tokens and requests are whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from access.budget_rules import SCOPES, amount_of, limit_of, scope_of
from access.budgets import standing_of, written
from access.models import ApiKey, Budget, Team
from monitoring.api.bodies import Strict, in_body_words
from providers.models import Provider

_HOLDERS: dict[str, Any] = {"team": Team, "key": ApiKey, "provider": Provider}
_PATHS = dict.fromkeys(SCOPES, "scope")


@extend_schema_field({"type": "object", "properties": {scope: {"type": "string"} for scope in SCOPES}, "maxProperties": 1})
class ScopeField(serializers.Field):
    """{"team": id}, {"key": id}, {"provider": id} or {"user": name}."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping) or len(data) != 1 or next(iter(data)) not in SCOPES:
            raise serializers.ValidationError(f'Write exactly one of {", ".join(SCOPES)}, e.g. {{"team": id}}.')
        ((scope, holder),) = data.items()
        if scope == "user":
            return {"user": serializers.CharField(max_length=200).run_validation(holder)}
        field = serializers.PrimaryKeyRelatedField(queryset=_HOLDERS[scope].objects.all(), pk_field=serializers.UUIDField())
        return {scope: field.run_validation(holder)}

    def to_representation(self, budget: Budget) -> dict[str, str]:
        scope, holder, _ = scope_of(budget)
        return {scope: holder}


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "integer"}], "example": "250.00"})
class AmountField(serializers.Field):
    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, bool) or not isinstance(data, str | int) or len(str(data)) > 40:
            raise serializers.ValidationError('Write a limit: decimal text such as "250.00" for money, else a whole number.')
        return str(data)

    def to_representation(self, value: Any) -> Any:
        return value


class BudgetSerializer(Strict):
    id = serializers.UUIDField(read_only=True)
    name = serializers.CharField(source="__str__", read_only=True)
    scope = ScopeField(source="*")
    kind = serializers.ChoiceField(choices=Budget.Kind.choices)
    currency = serializers.CharField(required=False, allow_blank=True, help_text="Of money: the reporting currency, or that of the prices.")
    limit = AmountField()
    period = serializers.ChoiceField(choices=Budget.Period.choices)
    hard = serializers.BooleanField(required=False, default=True, help_text="false: what goes beyond is reported, not refused.")
    used = AmountField(read_only=True, help_text="In the period of this moment, as all that follows.")
    reserved = AmountField(read_only=True, help_text="By requests under way, and for the next ones.")
    left = AmountField(read_only=True)
    alerted_percent = serializers.IntegerField(read_only=True, help_text="The highest of 50, 80 and 100 that was reported.")
    period_start = serializers.DateTimeField(read_only=True, allow_null=True)
    period_end = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When it renews; null = never.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "limit" in attrs or "kind" in attrs:
            kind = attrs.get("kind") or self.instance.kind  # type: ignore[union-attr]
            try:
                attrs["limit"] = limit_of(kind, attrs["limit"]) if "limit" in attrs else self.instance.limit  # type: ignore[union-attr]
            except ValueError as refused:
                raise serializers.ValidationError({"limit": str(refused)}) from None
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Budget:
        return self._saved(Budget(), validated_data)

    def update(self, instance: Budget, validated_data: dict[str, Any]) -> Budget:
        return self._saved(instance, validated_data)

    def _saved(self, row: Budget, values: Mapping[str, Any]) -> Budget:
        for name, value in values.items():
            setattr(row, name, value)
        with in_body_words(_PATHS):
            row.full_clean()
        row.save()
        return row

    def to_representation(self, row: Budget) -> dict[str, Any]:
        standing = standing_of(row)
        amounts = {"limit": row.limit, "used": standing.used, "reserved": standing.reserved, "left": standing.left}
        shown = {name: written(row, value) if row.kind == "money" else value for name, value in amounts.items()}
        return {
            "id": str(row.pk),
            "name": str(row),
            "scope": ScopeField().to_representation(row),
            "kind": row.kind,
            "currency": row.currency,
            "period": row.period,
            "hard": row.hard,
            **shown,
            "alerted_percent": standing.alerted_percent,
            "period_start": standing.started_at,
            "period_end": standing.ends_at,
        }


class CorrectionSerializer(Strict):
    amount = AmountField(help_text="In the budget's unit; below 0 gives back.")
    note = serializers.CharField(max_length=200, help_text="Why, for whoever checks the books.")

    def validate_amount(self, text: str) -> int:
        try:
            return amount_of(self.context["kind"], text)
        except ValueError as refused:
            raise serializers.ValidationError(str(refused)) from None
