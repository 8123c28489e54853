"""The document over REST: taken away, and brought in line with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException, ErrorDetail, ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from llmcontrol.portable import document, taking, writing
from llmcontrol.portable.kind import Scene
from llmcontrol.portable.plan import VERBS, Plan
from llmcontrol.portable.registry import KINDS

_FLAGS = {"": False, "false": False, "true": True}


class _ChangeSerializer(serializers.Serializer):
    field = serializers.CharField(help_text="With dots inside objects.")
    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class _OutcomeSerializer(serializers.Serializer):
    section = serializers.ChoiceField(choices=list(KINDS))
    name = serializers.CharField()
    verb = serializers.ChoiceField(choices=VERBS, help_text="left: it is here and not in the document.")
    changes = _ChangeSerializer(many=True)
    notes = serializers.ListField(child=serializers.CharField(), help_text="What people have to do yet, e.g. enter a key.")


class _PlanSerializer(serializers.Serializer):
    sha256 = serializers.CharField(help_text="Of the document.")
    plan = serializers.CharField(source="fingerprint", help_text="Names all that would change: see the parameter.")
    counts = serializers.DictField(child=serializers.IntegerField())
    outcomes = _OutcomeSerializer(many=True)


class _Imported(_PlanSerializer):
    applied = serializers.BooleanField()


class _TooLarge(APIException):
    status_code, default_code = 413, "request_too_large"


class _PlanOutdated(APIException):
    status_code, default_code = 409, "plan_outdated"


class DocumentParser(BaseParser):
    """The bytes as they come: their digest is on record."""

    media_type = document.MEDIA_TYPE

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        return stream.read(settings.CONFIG_FILE_MAX_BYTES + 1)


class ConfigExportView(APIView):
    """The configuration as a document, without secrets, always in the same order. That it was taken is on record."""

    permission_for = {"get": writing.PERMISSION}

    @extend_schema(
        responses=OpenApiTypes.OBJECT, parameters=[OpenApiParameter("only", str, description="Only these sections: providers,models")]
    )
    def get(self, request: Request) -> HttpResponse:
        asked = _asked(request, "only")
        try:
            text = writing.exported(_scene(request), [name for name in asked["only"].split(",") if name])
        except writing.UnknownSection as refused:
            raise _invalid("only", str(refused)) from None
        return HttpResponse(text, content_type=document.MEDIA_TYPE)


class ConfigImportView(APIView):
    """Brings the configuration in line with a document: all of it, or nothing where an entry is refused.

    What it does not speak of is left alone. The answer says what became of each entry; with `dry_run`, what would.
    """

    permission_for = {"post": taking.PERMISSION}
    parser_classes = (DocumentParser,)

    @extend_schema(
        request=OpenApiTypes.OBJECT,
        responses=_Imported,
        parameters=[
            OpenApiParameter("dry_run", bool, description="true: nothing is changed."),
            OpenApiParameter("plan", str, description="Only if this is what would happen, else 409: the `plan` of a dry run."),
        ],
    )
    def post(self, request: Request) -> Response:
        asked = _asked(request, "dry_run", "plan")
        if asked["dry_run"] not in _FLAGS:
            raise _invalid("dry_run", "Write true or false.")
        dry_run = _FLAGS[asked["dry_run"]]
        plan = _taken(request, dry_run=dry_run, agreed=asked["plan"])
        shown = {name: getattr(plan, name) for name in ("sha256", "fingerprint", "counts", "outcomes")}
        return Response(_Imported({**shown, "applied": not dry_run}).data)


def _taken(request: Request, *, dry_run: bool, agreed: str) -> Plan:
    """Raises APIException."""
    text = request.data if isinstance(request.data, bytes) else b""  # no body is parsed by nobody
    try:
        found = document.read(text, KINDS, settings.CONFIG_FILE_MAX_BYTES)
        return taking.take(found, _scene(request), dry_run=dry_run, agreed=agreed)
    except document.TooLarge as refused:
        raise _TooLarge(str(refused)) from None
    except document.DocumentRefused as refused:
        raise ValidationError(_by_path(refused.faults)) from None
    except taking.PlanOutdated as outdated:
        raise _PlanOutdated(str(outdated)) from None


def _by_path(faults: tuple[document.Fault, ...]) -> dict[str, list[ErrorDetail]]:
    found: dict[str, list[ErrorDetail]] = {}
    for fault in faults:
        sentence = f"{fault.name}: {fault.sentence}" if fault.name else fault.sentence
        found.setdefault(fault.path or api_settings.NON_FIELD_ERRORS_KEY, []).append(ErrorDetail(sentence, code="invalid"))
    return found


def _scene(request: Request) -> Scene:
    return Scene(timezone.now(), request.user)


def _asked(request: Request, *names: str) -> dict[str, str]:
    """Raises ValidationError for every other parameter: a typo must not answer with something else."""
    if unknown := sorted(set(request.query_params) - set(names)):
        raise ValidationError(
            {name: [ErrorDetail(f"Unknown parameter; there are {', '.join(names)}.", code="unknown")] for name in unknown}
        )
    return {name: request.query_params.get(name, "") for name in names}


def _invalid(parameter: str, sentence: str) -> ValidationError:
    return ValidationError({parameter: [ErrorDetail(sentence, code="invalid")]})
