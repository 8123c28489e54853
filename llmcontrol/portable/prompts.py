"""Prompt templates with all of their versions. A version is never edited: one that says something else here under its number is a fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from rest_framework import serializers

from llmcontrol.portable.document import Entry
from llmcontrol.portable.kind import Kind, in_order
from models_registry.models import PromptTemplate
from models_registry.prompt_services import Wording, save_prompt, wording_of
from monitoring.api.bodies import Strict, in_body_words
from providers.models import Visibility

_COLUMNS = ("description", "is_active", "visibility")


class _VersionSerializer(Strict):
    number = serializers.IntegerField(min_value=1)
    messages = serializers.ListField(child=serializers.DictField())
    variables = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    max_input_tokens = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=100_000_000, default=None)
    note = serializers.CharField(required=False, allow_blank=True, max_length=300, default="")


class _PromptSerializer(Strict):
    name = serializers.CharField(max_length=100)
    description = serializers.CharField(required=False, allow_blank=True, max_length=500)
    is_active = serializers.BooleanField(required=False)
    visibility = serializers.ChoiceField(choices=Visibility.choices, required=False)
    labels = serializers.DictField(child=serializers.IntegerField(min_value=1), required=False)
    versions = _VersionSerializer(many=True, required=False)


class Prompts(Kind):
    section, model = "prompts", PromptTemplate

    def rows(self) -> Iterable[PromptTemplate]:
        return PromptTemplate.objects.prefetch_related("versions")

    def shown(self, row: PromptTemplate) -> Entry:
        versions = sorted(row.versions.all(), key=lambda version: version.number)
        return {
            "name": row.name,
            **{name: getattr(row, name) for name in _COLUMNS},
            "labels": in_order(row.labels),
            "versions": [
                {"number": version.number, **msgspec.structs.asdict(wording_of(version)), "note": version.note} for version in versions
            ],
        }

    def save(self, row: PromptTemplate | None, entry: Entry, changed: Entry) -> PromptTemplate:
        asked = _PromptSerializer(data=entry)
        asked.is_valid(raise_exception=True)
        values = asked.validated_data
        template = PromptTemplate(name=values["name"]) if row is None else row
        for name in _COLUMNS:
            setattr(template, name, values.get(name, getattr(template, name)))
        with in_body_words():
            self._add(template, values.get("versions", []))
            template.labels = values.get("labels", template.labels)
            save_prompt(template)
        return template

    def _add(self, template: PromptTemplate, versions: list[dict[str, Any]]) -> None:
        """Those that are missing, in the order of their numbers. Raises ValidationError."""
        here = {} if template._state.adding else {version.number: wording_of(version) for version in template.versions.all()}
        for place, said in sorted(enumerate(versions), key=lambda pair: pair[1]["number"]):
            number, wording = said["number"], Wording(said["messages"], said["variables"], said["max_input_tokens"])
            if number in here:
                if here[number] != wording:
                    raise _refused(place, f"Version {number} says something else here, and a version is never edited: add another one.")
                continue
            made = save_prompt(template, wording, note=said["note"], by=self.scene.username)
            if made is None or made.number != number:
                raise _refused(place, f"Version {number} cannot be the next one here: numbers have no gaps, and each says something new.")
            here[number] = wording


def _refused(place: int, sentence: str) -> serializers.ValidationError:
    return serializers.ValidationError({f"versions[{place}]": sentence})
