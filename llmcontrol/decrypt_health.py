"""The page “Stored secrets” of the admin: does each open, and under which key? It shows none."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _

from providers import decrypt_health
from providers.decrypt_health import Look
from providers.vault import key_ring

PERMISSION = "providers.view_providerkey"


def page(request: HttpRequest) -> HttpResponse:
    """For those who may view vendors' keys; secrets of another model, for those who may view that."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    look = seen_by(request.user, page_number(request.GET.get("page", "")) or 1)
    context = {"title": _("Stored secrets"), "look": look, "previous": str(look.page - 1), "next": str(look.page + 1)}
    return TemplateResponse(request, "admin/llmcontrol/decrypt_health.html", {**admin.site.each_context(request), **context})


def seen_by(user: Any, page: int) -> Look:
    """What this user may see of it; `page` counts from 1."""

    def may_see(model: type[Model]) -> bool:
        return user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")

    return decrypt_health.look(key_ring(), page, may_see)


def page_number(text: str) -> int | None:
    """As it stands in an address; None = this is no page."""
    return int(text) or None if text.isascii() and text.isdecimal() and len(text) < 7 else None
