"""Webhooks, to look at and to send again, and their secrets, which are shown once."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action

from access import scope
from monitoring.admin import Ledger
from monitoring.columns import display
from monitoring.filters import Named
from monitoring.pages import Pages, ReadOnly
from monitoring.sentences import told
from tasks.models import PREFIX
from telling import services
from telling.alert_admin import AlertAdmin, AlertChannelAdmin, AlertRuleAdmin
from telling.models import Webhook, WebhookSecret, WebhookTry

__all__ = ["AlertAdmin", "AlertChannelAdmin", "AlertRuleAdmin", "WebhookAdmin", "WebhookSecretAdmin"]

_COLOURS = {"pending": "info", "delivered": "success", "dead": "danger"}


class TryInline(ReadOnly, TabularInline):
    model = WebhookTry
    fields = readonly_fields = ("number", "at", "status_code", "said", "duration_ms")
    extra = 0

    @display(description=_("Error"))
    def said(self, row: WebhookTry) -> str:
        return told(row.error)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return scope.allows(request.user, "telling.view_webhook", obj)


class EventNamed(Named):
    title, parameter_name, column = _("event type"), "event_type", "event_type"


@admin.register(Webhook)
class WebhookAdmin(Pages, Ledger):
    list_display = ("message_id", "event_type", "host", "state", "tries", "last_status", "error", "created_at", "ended_at")
    list_display_links = ("message_id",)
    list_filter = ("status", EventNamed, "team")
    list_select_related = ("team",)
    search_fields = ("=id", "=task__id")
    search_help_text = _("A whole webhook id or task id")
    newest_by = "created_at"
    ordering = ("-created_at",)
    actions = ("send_again",)
    actions_detail_hide_default = False
    inlines = (TryInline,)
    when_empty = _("Nothing was sent yet. A task with a callback_url tells that address how it ended.")
    fieldsets = (
        (None, {"fields": ("message_id", "event_type", "state", "team", "task", "channel", "url", "created_at", "ended_at")}),
        (_("Tries"), {"fields": ("tries", "last_status", "error")}),
        (_("Sent"), {"fields": ("body",)}),
    )

    @display(description=_("Status"), label=_COLOURS)
    def state(self, row: Webhook) -> tuple[str, str]:
        return row.status, row.get_status_display()

    @display(description=_("Last error"))
    def error(self, row: Webhook) -> str:
        return told(row.last_error)

    @display(description=_("webhook-id"))
    def message_id(self, row: Webhook) -> str:
        return row.message_id

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> tuple[QuerySet[Any], bool]:
        return super().get_search_results(request, queryset, search_term.strip().removeprefix("msg_").removeprefix(PREFIX))

    @action(description=_("Send dead letters again"), permissions=["replay"])
    def send_again(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        mine = scope.visible(request.user, rows, "telling.replay_webhook").filter(status=Webhook.Status.DEAD)
        sent = 0
        for row in mine:
            try:
                services.replay(row)
            except services.NotDead:  # somebody else was first
                continue
            sent += 1
        self.message_user(request, f"{sent} will be sent again.", messages.SUCCESS)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return scope.allows(request.user, "telling.replay_webhook")


@admin.register(WebhookSecret)
class WebhookSecretAdmin(Pages, ModelAdmin):
    """Made by the service, shown once, retired; never edited, never deleted here."""

    when_empty = _(
        "No secret yet. Webhooks are signed with the secret of their team, so that the receiver can tell that they are from here."
    )

    fields = ("team",)
    list_display = ("__str__", "team", "state", "created_at", "retires_at")
    list_filter = ("team",)
    list_select_related = ("team",)
    actions = None
    actions_detail = ("retire",)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("team", "state", "created_at", "retires_at") if obj else ("team",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("team", "state", "created_at", "retires_at") if obj else ()

    @display(description=_("Status"), label={"current": "success", "signs for a while": "info", "retired": "danger"})
    def state(self, row: WebhookSecret) -> str:
        if row.retires_at is None:
            return "current"
        return "signs for a while" if row.retires_at > timezone.now() else "retired"

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if "team" in form.base_fields:
            # Those of people's tasks are for whoever may make them for every team.
            form.base_fields["team"].required = not request.user.has_perm("telling.add_webhooksecret")
        return form

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**one_button, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: WebhookSecret, form: Any, change: bool) -> None:
        made, request.made = services.new_secret(form.cleaned_data["team"])  # type: ignore[attr-defined]
        obj.pk, obj.created_at = made.pk, made.created_at

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Drawn from this request alone: no redirect, so no session or cookie ever holds the secret."""
        credential = request.made  # type: ignore[attr-defined]
        return self.page(request, "shown_once.html", obj, gettext("Your new webhook secret"), credential=credential)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        row = self.get_object(request, str(object_id))
        return [] if row is None or self.state(row).value == "retired" else super().get_actions_detail(request, object_id)

    def has_retire_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        row = self.get_object(request, str(object_id)) if object_id is not None else None
        return scope.allows(request.user, "telling.delete_webhooksecret", row)

    @action(description=_("Retire"), permissions=["retire"], icon="block", url_path="retire")
    def retire(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.found(request, object_id)
        if request.method != "POST":
            explanation = "It signs nothing from now on. Without another secret, tasks with a callback_url are refused."
            return self.confirm(request, row, gettext("Retire"), explanation, danger=True)
        services.retire_secret(row)
        messages.success(request, f"The {row} signs nothing any more.")
        return redirect(self.url_of(row))
