"""How the REST is described: each operation, and one shape for everything that goes wrong."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers


class ErrorSerializer(serializers.Serializer):
    code = serializers.CharField(help_text="Short and stable, for programs.")
    detail = serializers.CharField(help_text="A plain sentence.")
    attr = serializers.CharField(allow_null=True, help_text="The field it is about, with dots inside objects.")


class ErrorsSerializer(serializers.Serializer):
    type = serializers.CharField(help_text="validation_error, client_error or server_error.")
    errors = ErrorSerializer(many=True)  # type: ignore[assignment]  # a field of that name


class Schema(AutoSchema):
    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        errors = self.resolve_serializer(ErrorsSerializer, direction).ref
        failed = {"description": "Refused; nothing was changed.", "content": {"application/json": {"schema": errors}}}
        return {**super()._get_response_bodies(direction), "4XX": failed}
