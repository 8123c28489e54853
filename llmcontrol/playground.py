"""The page “Playground” of the admin: the same question to one or two models, with what came, when, and for how much.

It asks as any program does: its script makes an API key of one hour in a team in which this person may make keys, and opens
`/ws/generate` with it. So permissions, limits, budgets, records and the audit trail are those of every other key.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _

from access.models import Team
from access.scope import allows, visible
from gateway.router import AUTO
from models_registry.models import LLMModel, Route

PERMISSION = "access.add_apikey"
_SHOWN = 500


def may_open(request: HttpRequest) -> bool:
    return allows(request.user, PERMISSION)


def page(request: HttpRequest) -> HttpResponse:
    """For those who may make API keys somewhere."""
    if not may_open(request):
        raise PermissionDenied
    teams = visible(request.user, Team.objects.order_by("name"), PERMISSION)[:_SHOWN]
    context = {"title": _("Playground"), "teams": teams, "names": names_for(request.user)}
    return TemplateResponse(request, "admin/llmcontrol/playground.html", {**admin.site.each_context(request), **context})


def names_for(user: Any) -> list[str]:
    """What may be asked for: routes and chat models that this person sees, by name."""
    routes = visible(user, Route.objects.filter(is_active=True)).values_list("alias", flat=True)
    models = visible(user, LLMModel.objects.filter(is_active=True, model_type=LLMModel.ModelType.CHAT)).values_list("alias", flat=True)
    found = sorted({*routes[:_SHOWN], *models.distinct()[:_SHOWN]})
    return [*found, AUTO] if found else []
