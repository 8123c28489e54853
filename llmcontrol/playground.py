"""The page “Playground” of the admin: the same question to one or two models, with what came, when, and for how much.

It asks as any program does: its script makes an API key of one hour in a team in which this person may make keys, and opens
`/ws/generate` with it. So permissions, limits, budgets, records and the audit trail are those of every other key.
`?request=` is the id of a request whose bodies are kept: the form is then filled in with what it asked, and its answer stands beside.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext

from access.models import Team
from access.scope import allows, visible
from core.errors import InvalidRequest
from gateway.router import AUTO
from llmcontrol import replay
from models_registry.models import LLMModel, Route
from monitoring import bodies
from monitoring.admin import bodies_kept_how, milliseconds
from monitoring.body_queue import Bodies
from monitoring.models import RequestLog
from monitoring.pages import amount

PERMISSION = "access.add_apikey"
READING = "monitoring.view_requestbody"
_SHOWN = 500


def may_open(request: HttpRequest) -> bool:
    return allows(request.user, PERMISSION)


def page(request: HttpRequest) -> HttpResponse:
    """For those who may make API keys somewhere."""
    if not may_open(request):
        raise PermissionDenied
    teams = visible(request.user, Team.objects.order_by("name"), PERMISSION)[:_SHOWN]
    names = names_for(request.user)
    again = _again(request.user, request.GET["request"], names) if "request" in request.GET else {}
    context = {"title": gettext("Playground"), "teams": teams, "names": names, "max_tokens": 500, **again}
    return TemplateResponse(request, "admin/llmcontrol/playground.html", {**admin.site.each_context(request), **context})


def links_for(row: RequestLog, user: Any, **signal: Any) -> list[tuple[str, str]]:
    """Receiver of `request_links_wanted`."""
    if not (allows(user, PERMISSION) and user.has_perm(READING)):
        return []
    return [(gettext("Ask it again on another model"), f"{reverse('playground')}?{urlencode({'request': row.request_id})}")]


def _again(user: Any, request_id: str, names: list[str]) -> dict[str, Any]:
    """What fills in the form. That its bodies were read is recorded; `refusal` says why it cannot be asked again."""
    row = visible(user, RequestLog.objects.filter(request_id=request_id)).first()
    if row is None:
        raise Http404("There is no request of this id; it may have been deleted.")
    if not user.has_perm(READING):
        raise PermissionDenied
    found = bodies.read(row)
    context: dict[str, Any] = {"original": row, **bodies_kept_how()}
    if found is None:
        return context
    try:
        return {**context, "stored": _stored(row, found), **_form(row, found, names)}
    except InvalidRequest as refused:
        return {**context, "refusal": refused.message}


def _form(row: RequestLog, found: Bodies, names: list[str]) -> dict[str, Any]:
    """Raises InvalidRequest."""
    if found.request_bytes > len(found.request):
        raise InvalidRequest(
            f"Of its {found.request_bytes:,} bytes only the first {len(found.request):,} were kept. "
            "To have more of the next ones kept, raise LLM_BODY_MAX_BYTES."
        )
    asked = replay.asked(row.dialect, found.request)
    fields = dict(asked.fields)
    most = [fields.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
    temperature = fields.pop("temperature", "")
    said = [(message["role"], message.get("content") or message) for message in asked.messages]
    return {
        "asked": asked,
        "replayed": {"messages": asked.messages, "fields": fields},
        "before": [(name, _text(value)) for name, value in (*said, *fields.items())],
        "max_tokens": next((tokens for tokens in most if tokens), ""),
        "temperature": temperature,
        "chosen": next((name for name in names if name != row.alias), ""),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _stored(row: RequestLog, found: Bodies) -> dict[str, Any]:
    figures = {
        gettext("Status"): row.status_code,
        gettext("First token"): milliseconds(row.first_token_ms),
        gettext("Whole answer"): milliseconds(row.duration_ms),
        gettext("Tokens"): gettext("%(tokens)s in and out") % {"tokens": f"{row.total_tokens:,}"},
        gettext("Answered by"): f"{row.provider_name}, {row.model_id}" if row.model_id else gettext("no vendor"),
        gettext("Cost"): amount(row.cost_micros, row.currency) if row.attempts else "–",
    }
    return {"text": replay.answered(found.response), "cut": found.response_bytes > len(found.response), "figures": figures}


def names_for(user: Any) -> list[str]:
    """What may be asked for: routes and chat models that this person sees, by name."""
    routes = visible(user, Route.objects.filter(is_active=True)).values_list("alias", flat=True)
    models = visible(user, LLMModel.objects.filter(is_active=True, model_type=LLMModel.ModelType.CHAT)).values_list("alias", flat=True)
    found = sorted({*routes[:_SHOWN], *models.distinct()[:_SHOWN]})
    return [*found, AUTO] if found else []
