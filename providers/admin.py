"""Vendors in the admin: enter, test, rotate, switch off. Every change goes through providers.services."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action
from unfold.views import ChangeList

from monitoring.columns import display
from monitoring.pages import Pages, SavesThroughService, amount, show_refusal
from providers import services, states
from providers.adapters import registry
from providers.forms import OPTION_PREFIX, AddKeyForm, ProviderForm, RotateKeyForm, TestConnectionForm, option_fields, provider_form
from providers.models import Provider, ProviderKey

_LIMITS = ("max_concurrency", "rate_type", ("rate_capacity", "rate_refill_per_s"), "tokens_per_minute")
_BREAKER = (
    "breaker_fail_max",
    ("breaker_reset_timeout_s", "breaker_max_reset_timeout_s"),
    "breaker_keep_last",
    ("breaker_failure_rate", "breaker_window_s", "breaker_min_calls"),
)
_TIMEOUTS = (("connect_timeout_s", "first_byte_timeout_s"), ("idle_timeout_s", "total_timeout_s"))
_COLUMNS = (
    "is_active",
    "visibility",
    "rate_type",
    "rate_capacity",
    "rate_refill_per_s",
    "tokens_per_minute",
    "max_concurrency",
    "price_adjustment_bp",
    "probe_budget_micros",
    "ca_certificates",
    "breaker_fail_max",
    "breaker_reset_timeout_s",
    "breaker_max_reset_timeout_s",
    "breaker_keep_last",
    "breaker_failure_rate",
    "breaker_window_s",
    "breaker_min_calls",
    "connect_timeout_s",
    "first_byte_timeout_s",
    "idle_timeout_s",
    "total_timeout_s",
)


class KeyInline(TabularInline):
    """The keys by their last four characters. A secret comes in through the form's own field, or by rotating."""

    model = ProviderKey
    fields = ("name", "shown", "weight", "is_active", "created_at", "rotated_at")
    readonly_fields = ("shown", "created_at", "rotated_at")
    verbose_name_plural = _("keys")
    hide_title = True
    extra = 0

    @display(description=_("Key"))
    def shown(self, row: ProviderKey) -> str:
        return f"…{row.last4}" if row.last4 else gettext("too short to show a part of")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class WithBreakers(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        breakers = {status["pk"]: status["breaker"] for status in states.not_well()["troubled"]}
        for row in self.result_list:
            row.breaker_now = breakers.get(row.pk, "")


@admin.register(Provider)
@method_decorator(sensitive_post_parameters("new_keys", "new_secret"), name="changeform_view")
class ProviderAdmin(SavesThroughService, Pages, ModelAdmin):
    when_empty = _("No provider yet. Add one: choose its type and paste the vendor’s key; then test the connection and take its models.")
    list_display = ("name", "state", "kind", "address", "keys_shown", "models_count")
    list_filter = ("is_active", "provider_type")
    search_fields = ("name", "base_url")
    inlines = (KeyInline,)
    actions_detail = (
        "test_connection",
        "sync_models",
        {"title": _("More"), "icon": "more_horiz", "items": ["add_key", "rotate_key", "reset_breaker", "disable", "enable"]},
    )
    change_form_after_template = "admin/llmcontrol/provider_state.html"
    warn_unsaved_form = True

    # What it looks like ---------------------------------------------------------------------------------------------
    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        return super().get_queryset(request).prefetch_related("keys").annotate(models_found=Count("models"))

    @display(
        description=_("Status"),
        label={"on": "success", "off": "danger", "no key": "warning", "breaker open": "danger", "breaker half open": "warning"},
    )
    def state(self, row: Provider) -> str:
        if not row.is_active:
            return "off"
        keyless = not any(key.is_active for key in row.keys.all())
        known = row.provider_type in dict(registry.kinds())
        if keyless and known and services.needs_key(row.provider_type):
            return "no key"
        return {"open": "breaker open", "half-open": "breaker half open"}.get(getattr(row, "breaker_now", ""), "on")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return WithBreakers

    @display(description=_("Type"), ordering="provider_type")
    def kind(self, row: Provider) -> str:
        return gettext(dict(registry.kinds()).get(row.provider_type, row.provider_type))

    @display(description=_("Address"))
    def address(self, row: Provider) -> str:
        return row.base_url or gettext("the vendor's own")

    @display(description=_("Keys"))
    def keys_shown(self, row: Provider) -> str:
        return ", ".join(f"…{key.last4 or '????'}" for key in row.keys.all()) or gettext("none")

    @display(description=_("Models"), ordering="models_found")
    def models_count(self, row: Any) -> int:
        return int(row.models_found)

    def get_inlines(self, request: HttpRequest, obj: Provider | None) -> tuple[type[TabularInline], ...]:
        return self.inlines if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change=change, **{"form": provider_form(), **kwargs})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        writable = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        options = tuple(OPTION_PREFIX + name for name in option_fields()) if writable else ("options",)
        return (
            (
                None,
                {
                    "fields": (
                        "name",
                        "provider_type",
                        "base_url",
                        *options,
                        *(("new_keys",) if writable else ()),
                        ("is_active", "visibility"),
                    )
                },
            ),
            (_("Limits"), {"fields": _LIMITS, "classes": ("collapse",)}),
            (_("Money"), {"fields": ("price_adjustment_bp", "probe_budget_micros"), "classes": ("collapse",)}),
            (_("Breaker"), {"fields": _BREAKER, "classes": ("collapse",)}),
            (_("Certificate"), {"fields": ("ca_certificates",), "classes": ("collapse",)}),
            (_("Timeouts, in seconds"), {"fields": _TIMEOUTS, "classes": ("collapse",)}),
        )

    @property
    def conditional_fields(self) -> dict[str, str]:
        """Which option fields the page shows for the chosen type (an expression that runs in the browser)."""
        return {OPTION_PREFIX + name: f"{kinds!r}.includes(provider_type)" for name, (_, kinds) in option_fields().items()}

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        status = states.statuses([row])[0] if row else None
        return super().change_view(request, object_id, form_url, {"status": status, **_probes(status), **(extra_context or {})})

    # Saving ---------------------------------------------------------------------------------------------------------
    def save_model(self, request: HttpRequest, obj: Provider, form: ProviderForm, change: bool) -> None:
        data, secrets = form.cleaned_data, form.secrets()
        columns = {name: data[name] for name in _COLUMNS if name in data}
        fields = {"name": data["name"], "provider_type": data["provider_type"], "base_url": data["base_url"], "options": obj.options}
        try:
            if change:
                stored = Provider.objects.get(pk=obj.pk)
                # `save_formset` tells when keys go with the old address.
                replaced = secrets if secrets or services.moves(stored, fields) else None
                services.update_provider(stored, {**fields, **columns}, replaced)
            else:
                obj.pk = services.create_provider(**fields, secrets=secrets, **columns).pk
                if not secrets and services.needs_key(data["provider_type"]):
                    messages.warning(request, gettext("It has no key yet, and this vendor answers nobody without one: add one under More."))
        except ValidationError as refused:
            raise _in_form_words(refused, "new_keys") from refused

    def save_formset(self, request: HttpRequest, form: ProviderForm, formset: Any, change: bool) -> None:
        """Keys that new ones or another host have just done away with stay away, whatever was typed beside them."""
        kept = set(ProviderKey.objects.filter(provider=form.instance).values_list("pk", flat=True))
        if all(row.instance.pk in kept for row in formset.initial_forms):
            return super().save_formset(request, form, formset, change)
        formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
        if not kept:
            messages.warning(request, "The stored keys belonged to the old address and were removed. Enter the key again if one is needed.")

    # Verbs ----------------------------------------------------------------------------------------------------------
    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        row = self.get_object(request, str(object_id))
        unfit = "enable" if row is None or row.is_active else "disable"
        return [found for found in super().get_actions_detail(request, object_id) if not found.action_name.endswith(f"_{unfit}")]

    def has_test_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("providers.test_provider"))

    def has_sync_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("providers.sync_provider"))

    def has_rotate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("providers.rotate_providerkey"))

    def has_add_key_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("providers.add_providerkey"))

    @action(description=_("Test connection"), permissions=["test"], icon="network_check", url_path="test")
    def test_connection(self, request: HttpRequest, object_id: str) -> HttpResponse:
        provider = self.found(request, object_id)
        form, report = TestConnectionForm(provider, request.POST or None), None
        if form.is_valid():
            report = services.test_connection(provider, form.cleaned_data["model"])
        return self.page(request, "test_connection.html", provider, gettext("Test connection"), form=form, report=report)

    @action(description=_("Sync models"), permissions=["sync"], icon="sync", url_path="sync")
    def sync_models(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        provider = self.found(request, object_id)
        return redirect(reverse(f"{self.admin_site.name}:models_registry_llmmodel_sync", args=[provider.pk]))

    @action(description=_("Add key"), permissions=["add_key"], icon="add", url_path="add-key")
    @method_decorator(sensitive_post_parameters("new_secret"))
    def add_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        provider = self.found(request, object_id)
        form = AddKeyForm(request.POST or None)
        if form.is_valid():
            try:
                services.add_key(provider, form.cleaned_data["new_secret"], form.cleaned_data["name"])
            except ValidationError as refused:
                show_refusal(form, _in_form_words(refused, "new_secret"))
            else:
                return self._done(
                    request, provider, "Added a key.", f"{provider} has one more key; requests are shared out over all of them."
                )
        return self.page(request, "form.html", provider, gettext("Add key"), form=form, verb=_("Add the key"))

    @action(description=_("Rotate key"), permissions=["rotate"], icon="key", url_path="rotate")
    @method_decorator(sensitive_post_parameters("new_secret"))
    def rotate_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        provider = self.found(request, object_id)
        form = RotateKeyForm(provider, request.POST or None)
        if form.is_valid():
            try:
                services.rotate_key(form.cleaned_data["key"], form.cleaned_data["new_secret"])
            except ValidationError as refused:
                show_refusal(form, _in_form_words(refused, "new_secret"))
            else:
                return self._done(
                    request, provider, "Rotated a key.", f"The key of {provider} was replaced; the old one is no longer used."
                )
        return self.page(
            request,
            "form.html",
            provider,
            gettext("Rotate key"),
            form=form if provider.keys.exists() else None,
            explanation="This provider has no key to rotate: add one instead.",
            verb=_("Replace the key"),
        )

    @action(description=_("Reset breaker"), permissions=["change"], icon="restart_alt", url_path="reset-breaker")
    def reset_breaker(self, request: HttpRequest, object_id: str) -> HttpResponse:
        provider = self.found(request, object_id)
        if request.method != "POST":
            explanation = "Every breaker of this provider closes and its keys rest no longer: requests go to this vendor again at once."
            return self.confirm(request, provider, gettext("Reset breaker"), explanation)
        services.reset_breaker(provider)
        return self._done(request, provider, "Reset the breaker.", f"{provider} is called again, in every process within two seconds.")

    @action(description=_("Disable"), permissions=["change"], icon="block", url_path="disable")
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        provider = self.found(request, object_id)
        if request.method != "POST":
            return self.confirm(
                request,
                provider,
                gettext("Disable"),
                "No new request will go to this vendor, and its models are no longer offered.",
                danger=True,
            )
        services.disable_provider(provider)
        return self._done(request, provider, "Disabled.", f"{provider} is off: within two seconds no new request goes there.")

    @action(description=_("Enable"), permissions=["change"], icon="check_circle", url_path="enable")
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        provider = self.found(request, object_id)
        if request.method != "POST":
            return self.confirm(request, provider, gettext("Enable"), "Requests will go to this vendor again, and its models are offered.")
        services.enable_provider(provider)
        return self._done(request, provider, "Enabled.", f"{provider} is on: within two seconds its models are offered again.")

    def _done(self, request: HttpRequest, provider: Provider, logged: str, said: str) -> HttpResponseRedirect:
        self.log_change(request, provider, logged)
        messages.success(request, said)
        return redirect(self.url_of(provider))


def _probes(status: dict[str, Any] | None) -> dict[str, str]:
    """What the page says they cost."""
    probes = status["probes"] if status else None
    return {name: amount(probes[f"{name}_micros"], probes["currency"]) for name in ("spent", "budget")} if probes else {}


def _in_form_words(refused: ValidationError, key_field: str) -> ValidationError:
    """The services call a secret `api_key`; each form has its own field for it."""
    if not hasattr(refused, "error_dict"):
        return refused
    return ValidationError({key_field if field == "api_key" else field: errors for field, errors in refused.error_dict.items()})
