"""The auditor's pages: the trail newest first, one event with before and after, the history of one object, and files of all that."""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from monitoring import audit_export
from monitoring.admin import Ledger
from monitoring.columns import display
from monitoring.filters import Between, Named, Since
from monitoring.models import AuditEvent
from monitoring.saved_filters import SavesFilters

HISTORY_ROWS = 50
KINDS = {
    "created": "success",
    "changed": "info",
    "deleted": "danger",
    "login": "success",
    "login_failed": "warning",
    "refused": "warning",
    "revealed": "warning",
    "body_read": "warning",
    "exported": "warning",
    "breaker": "danger",
}
_NOTHING = "–"


class Lately(Since):
    column = "at"


class ActorNamed(Named):
    title, parameter_name, column = _("who"), "actor", "actor"


class ObjectType(Named):
    title, parameter_name, column = _("kind of object, e.g. access.Team"), "type", "object_type"


class ObjectId(Named):
    title, parameter_name, column = _("id of an object"), "object", "object_id"


class AddressNamed(Named):
    title, parameter_name, column = _("address"), "address", "address"


class SourceNamed(Named):
    title, parameter_name, column = _("source: admin, api, shell, command, data plane"), "source", "source"


@admin.register(AuditEvent)
class AuditEventAdmin(SavesFilters, Ledger):
    """Nobody adds, changes or deletes: there is no such permission, for superusers either."""

    when_empty = _("Nothing is recorded yet: each change, login and refusal will be.")

    list_display = ("when", "who", "source", "what", "on", "summary")
    list_display_links = ("when",)
    list_filter = (Lately, ("at", Between), "action", ActorNamed, SourceNamed, ObjectType, ObjectId, AddressNamed)
    search_fields = ("request_id__exact",)
    ordering = ("-sequence",)
    list_before_template = "admin/llmcontrol/audit_list.html"
    fieldsets = (
        (None, {"fields": (("sequence", "when"), ("action", "on"), ("object_type", "object_id"))}),
        (_("Who"), {"fields": (("who", "actor_id"), ("source", "address"), "request_id")}),
        (_("Chain"), {"fields": ("prev", "hash"), "classes": ("collapse",)}),
    )
    readonly_fields = ("when", "who", "on")
    change_form_after_template = "admin/llmcontrol/audit_event.html"

    @display(description=_("Time"))
    def when(self, row: AuditEvent) -> str:
        return f"{timezone.localtime(row.at):%Y-%m-%d %H:%M:%S}"

    @display(description=_("Who"))
    def who(self, row: AuditEvent) -> str:
        return row.actor or gettext("nobody known")

    @display(description=_("Did"), label=KINDS)
    def what(self, row: AuditEvent) -> tuple[str, str]:
        return row.action, row.get_action_display()

    @display(description=_("Object"))
    def on(self, row: AuditEvent) -> str:
        return f"{_kind(row.object_type)} {row.object_label}".strip() or _NOTHING

    @display(description=_("Fields"))
    def summary(self, row: AuditEvent) -> str:
        names = [str(name) for name in row.changed or {}]
        more = gettext(" and %d more") % (len(names) - 2) if len(names) > 2 else ""
        return ", ".join(names[:2]) + more or _NOTHING

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        context = {"event": shown(row) if row else None, "about": _links(row) if row else {}, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    # Export -----------------------------------------------------------------------------------------------------------
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may = request.user.has_perm("monitoring.export_auditevent")
        return super().changelist_view(request, {"may_export": may, "max_rows": audit_export.MAX_ROWS, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(self.export)
        return [path("export.<slug:kind>", export, name="monitoring_auditevent_export"), *super().get_urls()]

    def export(self, request: HttpRequest, kind: str) -> HttpResponse:
        """What the list shows, with its filters, from the newest row on."""
        if not request.user.has_perm("monitoring.export_auditevent"):
            raise PermissionDenied
        if kind not in audit_export.MEDIA_TYPES:
            raise Http404("There are CSV and JSON lines.")
        rows = self.get_changelist_instance(request).queryset
        return audit_export.answer(rows.order_by("-sequence"), kind, request.GET.urlencode())


def history(request: HttpRequest, app: str, name: str, object_id: str) -> HttpResponse:
    """What happened to one object, newest first, with before and after. For auditors, and for those who may see the object."""
    try:
        model = apps.get_model(app, name)
        page = admin.site._registry[model]
    except (LookupError, KeyError):
        raise Http404("There is no such kind of object.") from None
    row = page.get_object(request, object_id)
    if not request.user.has_perm("monitoring.view_auditevent") and (row is None or not page.has_view_permission(request, row)):
        raise PermissionDenied
    events = AuditEvent.objects.filter(object_type=model._meta.label, object_id=object_id)
    before = request.GET.get("before", "")
    if before.isascii() and before.isdecimal() and len(before) < 19:
        events = events.filter(sequence__lt=int(before))
    found = list(events.order_by("-sequence")[: HISTORY_ROWS + 1])
    request.current_app = admin.site.name
    context = {
        **admin.site.each_context(request),
        "opts": model._meta,
        "title": _("History"),
        "original": row or (found[0].object_label if found else object_id),
        "events": [shown(event) for event in found[:HISTORY_ROWS]],
        "older": str(found[HISTORY_ROWS - 1].sequence) if len(found) > HISTORY_ROWS else None,
        "back": reverse(f"admin:{app}_{name}_change", args=[row.pk]) if row else None,
    }
    return TemplateResponse(request, "admin/llmcontrol/audit_history.html", context)


def shown(row: AuditEvent) -> dict[str, Any]:
    """An event as its pages draw it."""
    return {"row": row, "kind": KINDS.get(row.action, "default"), "fields": [_field(*item) for item in (row.changed or {}).items()]}


def _field(name: str, sides: Any) -> dict[str, Any]:
    before, after = sides if isinstance(sides, list) and len(sides) == 2 else (None, sides)
    field: dict[str, Any] = {"name": gettext(name.replace("_", " ")), "before": _text(before), "after": _text(after)}
    if isinstance(before, list) and isinstance(after, list):
        field["gone"] = [_text(item) for item in before if item not in after]
        field["new"] = [_text(item) for item in after if item not in before]
    return field


def _text(value: Any) -> str:
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return gettext("yes") if value else gettext("no")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(label: str) -> str:
    try:
        return str(apps.get_model(label)._meta.verbose_name) if label else ""
    except (LookupError, ValueError):
        return label


def _links(row: AuditEvent) -> dict[str, str]:
    """To the object, if it is still there, and to its history."""
    try:
        model: Any = apps.get_model(row.object_type)
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        links = {"history": reverse(f"admin:{name}_history", args=[row.object_id])}
        if model._base_manager.filter(pk=row.object_id).exists():
            links["object"] = reverse(f"admin:{name}_change", args=[row.object_id])
        return links
    except (LookupError, ValueError, NoReverseMatch):
        return {}
