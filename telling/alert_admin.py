"""Alerts in the admin: what is firing and what was, the rules behind it, and the channels that are told."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.timesince import timesince
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from access import scope
from monitoring.columns import display
from monitoring.pages import Pages, ReadOnly, RefusableForm, SavesThroughService
from monitoring.sentences import told
from telling import alert_services
from telling.alert_models import Alert, AlertChannel, AlertRule
from telling.alerts.kinds import KINDS
from telling.channels.registry import CHANNELS

_LAST_ALERTS, _ALERTS_LOOKED_AT = 10, 50


class Firing(SimpleListFilter):
    title, parameter_name = _("state"), "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("firing", gettext("Firing now")), ("resolved", gettext("Resolved"))]

    def queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows if self.value() is None else rows.filter(resolved_at__isnull=self.value() == "firing")


def has_lasted(alert: Alert) -> str:
    return timesince(alert.started_at, alert.resolved_at or timezone.now())


@admin.register(Alert)
class AlertAdmin(ReadOnly, Pages, ModelAdmin):
    when_empty = _("No alert has fired. Rules say when one does, and whom it tells.")
    list_display = ("state", "rule_name", "about", "said", "started_at", "lasted", "resolved_at")
    list_display_links = ("rule_name",)
    list_filter = (Firing, "condition")
    search_fields = ("=label", "=rule_name")
    show_full_result_count = False
    fields = (
        ("state", "lasted"),
        ("rule_name", "about"),
        "said",
        ("value_shown", "threshold"),
        ("started_at", "seen_at", "resolved_at"),
    )
    readonly_fields = ("state", "about", "said", "lasted", "value_shown", "threshold")

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        """What fires stands first."""
        return (F("resolved_at").desc(nulls_first=True), "-started_at")

    @display(description=_("State"), label={"firing": "danger", "resolved": "success"})
    def state(self, row: Alert) -> str:
        return "firing" if row.is_firing else "resolved"

    @display(description=_("What about"))
    def about(self, row: Alert) -> str:
        return told(row.label)

    @display(description=_("Says"))
    def said(self, row: Alert) -> str:
        return told(row.sentence)

    @display(description=_("Lasted"))
    def lasted(self, row: Alert) -> str:
        return has_lasted(row)

    @display(description=_("Last value"))
    def value_shown(self, row: Alert) -> str:
        return f"{row.value:,.2f} ({gettext(KINDS[row.condition].unit)})"

    @display(description=_("The rule fires beyond"))
    def threshold(self, row: Alert) -> str:
        return f"{row.rule.threshold.normalize():f}" if row.rule else gettext("the rule was deleted")


class Testable(Pages, ModelAdmin):
    """With a button that really sends."""

    actions_detail = ("send_test",)

    def has_test_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return scope.allows(request.user, "telling.test_alertchannel")

    @action(description=_("Send a test"), permissions=["test"], icon="send", url_path="test")
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.found(request, object_id)
        tried = self.try_out(row) if request.method == "POST" else None
        return self.page(request, "alert_test.html", row, gettext("Send a test"), tried=tried, channels=self.receivers(row))

    def try_out(self, row: Any) -> list[alert_services.Tried]:
        raise NotImplementedError

    def receivers(self, row: Any) -> list[AlertChannel]:
        raise NotImplementedError


class RuleForm(forms.ModelForm):
    class Meta:
        model = AlertRule
        fields = ("name", "condition", "threshold", "window_s", "min_requests", "per_provider", "channels", "is_active")
        widgets = {"channels": UnfoldAdminCheckboxSelectMultipleWidget}


@admin.register(AlertRule)
class AlertRuleAdmin(Testable):
    when_empty = _("No rule yet. A rule says what is looked at, from which threshold on it fires, and whom it tells.")
    form = RuleForm
    list_display = ("name", "state", "condition", "fires", "told_shown", "is_active")
    list_filter = ("condition", "is_active")
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "condition", ("threshold", "window_s"), ("min_requests", "per_provider"), "is_active")}),
        (_("Who is told"), {"fields": ("channels",)}),
    )
    change_form_before_template = "admin/llmcontrol/alert_conditions.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[AlertRule]:
        return super().get_queryset(request).prefetch_related("channels")

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changeform_view(request, object_id, form_url, {"kinds": list(KINDS.values()), **(extra_context or {})})

    @display(description=_("State"), label={"firing": "danger", "quiet": "success", "off": "warning"})
    def state(self, row: AlertRule) -> str:
        if not row.is_active:
            return "off"
        return "firing" if row.alerts.filter(resolved_at=None).exists() else "quiet"

    @display(description=_("Fires beyond"), ordering="threshold")
    def fires(self, row: AlertRule) -> str:
        return f"{row.threshold.normalize():f} {gettext(KINDS[row.condition].unit)}"

    @display(description=_("Tells"))
    def told_shown(self, row: AlertRule) -> str:
        return ", ".join(channel.name for channel in row.channels.all()) or gettext("nobody")

    def try_out(self, row: AlertRule) -> list[alert_services.Tried]:
        return alert_services.try_rule(row)

    def receivers(self, row: AlertRule) -> list[AlertChannel]:
        return list(row.channels.all())


class ChannelForm(RefusableForm, forms.ModelForm):
    recipients = forms.CharField(
        label=_("Recipients"), required=False, widget=UnfoldAdminTextareaWidget({"rows": 3}), help_text=_("Of e-mail: one address a line.")
    )
    url = forms.CharField(
        label=_("Address"),
        required=False,
        widget=UnfoldAdminPasswordWidget({"autocomplete": "off"}),
        help_text=_(
            "Of a webhook, or of the chat's robot as the chat shows it. "
            "Stored sealed and never shown again. Left empty when changing: it stays as it is."
        ),
    )
    secret = forms.CharField(
        label=_("Secret"),
        required=False,
        widget=UnfoldAdminPasswordWidget({"autocomplete": "off"}),
        help_text=_(
            "What messages are signed with: whsec_… of a webhook; of DingTalk and Feishu, where signing is on. "
            "Stored sealed and never shown again. Left empty when changing: it stays as it is."
        ),
    )

    class Meta:
        model = AlertChannel
        fields = ("name", "kind", "is_active", "recipients")


@admin.register(AlertChannel)
@method_decorator(sensitive_post_parameters("url", "secret"), name="changeform_view")
class AlertChannelAdmin(SavesThroughService, Testable):
    when_empty = _("No channel yet. Alerts go to a webhook, e-mail, DingTalk, Feishu or WeCom; add one, and send a test.")
    form = ChannelForm
    list_display = ("name", "kind", "shown_address", "is_active", "created_at")
    list_filter = ("kind", "is_active")
    search_fields = ("name",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("name", "kind", "url", "secret", "recipients", "is_active")
        own = CHANNELS[obj.kind].fields if self.has_change_permission(request, obj) else {}
        return ("name", "kind", "shown_address", *own, "is_active")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("kind", "shown_address") if obj else ()

    def save_model(self, request: HttpRequest, obj: AlertChannel, form: ChannelForm, change: bool) -> None:
        alert_services.save_channel(obj, url=form.cleaned_data.get("url") or None, secret=form.cleaned_data.get("secret") or None)

    def try_out(self, row: AlertChannel) -> list[alert_services.Tried]:
        return [alert_services.try_channel(row)]

    def receivers(self, row: AlertChannel) -> list[AlertChannel]:
        return [row]


def firing_now() -> list[dict[str, Any]]:
    """For the overview: the newest of what fires. A budget that is used up is beyond 50 and 80 % too: of rules about one thing, the
    one with the highest threshold is told of."""
    rows = Alert.objects.filter(resolved_at=None).select_related("rule").order_by("-started_at")[:_ALERTS_LOOKED_AT]
    worst: dict[tuple[str, str], Alert] = {}
    for row in rows:
        other = worst.setdefault((row.condition, row.subject), row)
        if _threshold(row) > _threshold(other):
            worst[row.condition, row.subject] = row
    return [{"row": row, "lasted": has_lasted(row)} for row in list(worst.values())[:_LAST_ALERTS]]


def _threshold(alert: Alert) -> Decimal:
    return alert.rule.threshold if alert.rule else Decimal(0)
