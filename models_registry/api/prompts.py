"""Prompt templates over REST: a change of what one says makes another version, labels move."""

from __future__ import annotations

from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from core.errors import InvalidRequest
from models_registry.models import PromptTemplate, PromptVersion
from models_registry.prompt_building import Said, build, tokens_of
from models_registry.prompt_services import Wording, latest_of, save_prompt, wording_of
from models_registry.prompts import MAX_INPUT_TOKENS
from monitoring.api.bodies import Strict, StrictModel, in_body_words
from monitoring.api.filters import StrictFilters

MAX_PREVIEW_CHARACTERS = 1_000_000
_VIEW, _CHANGE = "models_registry.view_prompttemplate", "models_registry.change_prompttemplate"
_WORDS = msgspec.structs.fields(Wording)


class PromptFilters(StrictFilters):
    class Meta:
        model = PromptTemplate
        fields = ["name", "is_active"]


class LabelsSerializer(serializers.DictField):
    child = serializers.IntegerField(min_value=1)


class PromptSerializer(StrictModel):
    """What it says is that of its latest version; `prompts/{id}/versions` has the others."""

    labels = LabelsSerializer(
        required=False, help_text='E.g. {"production": 3, "staging": 4}. Where a request names no version, production is meant.'
    )
    version = serializers.IntegerField(read_only=True, help_text="The latest number.")
    messages = serializers.ListField(
        child=serializers.DictField(), help_text='{"role", "content"} with {{name}} for a variable, or {"history": its name}.'
    )
    variables = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        help_text='{"name", "type": text | number | history | context, "required", "default", "max_characters", "description"}',
    )
    max_input_tokens = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MAX_INPUT_TOKENS, help_text="null = the model's window."
    )
    note = serializers.CharField(required=False, allow_blank=True, max_length=300, help_text="What the new version changes.")

    class Meta:
        model = PromptTemplate
        fields = (
            *("id", "name", "description", "is_active", "visibility", "labels"),
            *("version", "messages", "variables", "max_input_tokens", "note"),
        )

    def _saved(self, row: PromptTemplate, values: Any) -> PromptTemplate:
        given = dict(values)
        note = given.pop("note", "")
        words = {field.name: given.pop(field.name) for field in _WORDS if field.name in given}
        for name, value in given.items():
            setattr(row, name, value)
        latest = latest_of(row)
        before = msgspec.structs.asdict(wording_of(latest)) if latest else {"messages": [], "variables": []}
        with in_body_words():
            save_prompt(row, Wording(**{**before, **words}) if words else None, note=note, by=self.context["request"].user.get_username())
        return row

    def to_representation(self, row: PromptTemplate) -> dict[str, Any]:
        version = latest_of(row)
        shown = {"version": version.number, **_said_by(version)} if version else {}
        columns = ("name", "description", "is_active", "visibility", "labels")
        return {"id": str(row.pk), **{name: getattr(row, name) for name in columns}, **shown}


class VersionSerializer(serializers.ModelSerializer):
    version = serializers.IntegerField(source="number", read_only=True)

    class Meta:
        model = PromptVersion
        fields = read_only_fields = ("version", "messages", "variables", "max_input_tokens", "note", "created_by", "created_at")


class PreviewSerializer(Strict):
    version = serializers.CharField(
        required=False, allow_null=True, max_length=60, help_text="Number or label; left out: as for a request that names none."
    )
    variables = serializers.DictField(required=False, default=dict)
    room_tokens = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MAX_INPUT_TOKENS, help_text="As a model's window would leave."
    )


class PreviewedSerializer(serializers.Serializer):
    version = serializers.IntegerField()
    messages = serializers.ListField(child=serializers.DictField())
    tokens = serializers.IntegerField(help_text="Estimated.")
    left_out = serializers.CharField(help_text="Values for which there was no room, by place.")


class PromptViewSet(ModelViewSet):
    """Prompts that callers name in place of sending them: `"prompt": {"id": name, "version": …, "variables": {…}}`.

    A version is never edited: other `messages`, `variables` or `max_input_tokens` make another one, with the next number.
    """

    queryset = PromptTemplate.objects.all()
    serializer_class = PromptSerializer
    filterset_class = PromptFilters
    keyset = "name"
    permission_for = {"versions": _VIEW, "preview": _CHANGE}

    @extend_schema(responses=VersionSerializer(many=True))
    @action(detail=True, methods=["get"])
    def versions(self, request: Request, pk: str) -> Response:
        """All versions, the latest first."""
        template = self.get_object()
        self.keyset = "-number"
        page = self.paginate_queryset(template.versions.all())
        return self.get_paginated_response(VersionSerializer(page, many=True).data)

    @extend_schema(request=PreviewSerializer, responses=PreviewedSerializer)
    @action(detail=True, methods=["post"])
    def preview(self, request: Request, pk: str) -> Response:
        """The messages as they would be sent. Nothing is saved, and no vendor is asked."""
        template = self.get_object()
        asked = PreviewSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        values = asked.validated_data
        try:
            version = template.spec().version(values.get("version"))
        except ValueError as refused:
            raise serializers.ValidationError({"version": f"The prompt cannot be read: {refused}"}) from None
        if version is None:
            raise serializers.ValidationError({"version": "This prompt has no such version."})
        given = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values["variables"].items()}
        try:
            built = build(version, given, values.get("room_tokens"), MAX_PREVIEW_CHARACTERS)
        except InvalidRequest as refused:
            raise serializers.ValidationError({(refused.param or "variables").removeprefix("prompt."): refused.message}) from None
        said = [msgspec.to_builtins(each) if isinstance(each, Said) else msgspec.json.decode(each) for each in built.messages]
        shown = {"version": version.number, "messages": said, "tokens": sum(map(tokens_of, built.messages)), "left_out": built.left_out}
        return Response(PreviewedSerializer(shown).data)


def _said_by(version: PromptVersion) -> dict[str, Any]:
    return {**msgspec.structs.asdict(wording_of(version)), "note": version.note}
