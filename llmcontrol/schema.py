"""How the REST is described: each operation, and one shape for everything that goes wrong."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

_JSON = "application/json"
_TEXT = {"type": "string"}  # what a table or lines of JSON are to the description
_FAILURES = {
    "4XX": "Refused; nothing was changed.",
    "503": "The database is busy or away; nothing was changed. Try again shortly.",
    "507": "The disk of the database is full; nothing was changed.",
}


class ErrorSerializer(serializers.Serializer):
    code = serializers.CharField(help_text="Short and stable, for programs.")
    detail = serializers.CharField(help_text="A plain sentence.")
    attr = serializers.CharField(allow_null=True, help_text="The field it is about, with dots inside objects.")


class ErrorsSerializer(serializers.Serializer):
    type = serializers.CharField(help_text="validation_error, client_error or server_error.")
    errors = ErrorSerializer(many=True)  # type: ignore[assignment]  # a field of that name


class Schema(AutoSchema):
    def get_filter_backends(self) -> list[Any]:
        """Of sums too: they are one object, and their filters say of what."""
        if self.method == "GET" and not hasattr(self.view, "action"):
            return list(getattr(self.view, "filter_backends", ()))
        return super().get_filter_backends()

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        errors = self.resolve_serializer(ErrorsSerializer, direction).ref
        content = {media_type: {"schema": errors} for media_type in dict.fromkeys((_JSON, *self.map_renderers("media_type")))}
        failed = {status: {"description": sentence, "content": dict(content)} for status, sentence in _FAILURES.items()}
        bodies = {**super()._get_response_bodies(direction), **failed}
        for described in (body.get("content", {}) for body in bodies.values()):
            described.update({media_type: {"schema": _TEXT} for media_type in described if media_type != _JSON})
        return bodies
