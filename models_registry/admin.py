"""Models and their prices in the admin, and the page that brings the list of models in line with the vendor's."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Prefetch, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action

from core.errors import GatewayError
from core.secrets import CannotOpen
from models_registry import catalogue, chains, dark, price_file, services
from models_registry.conversion import unconvertible
from models_registry.forms import ExchangeRateForm, RouteForm, SetPriceForm
from models_registry.models import ExchangeRate, LLMModel, Price, Route
from models_registry.sync import Proposal, SyncDiff
from monitoring.columns import display
from monitoring.pages import Pages, ReadOnly, amount, show_refusal
from monitoring.sentences import told
from providers.models import Provider

# Four boxes each, and Django takes a thousand fields.
MAX_PROPOSALS_SHOWN = 200


def _in_force() -> QuerySet[Price]:
    now = timezone.now()
    return Price.objects.filter(Q(valid_to__isnull=True) | Q(valid_to__gt=now), valid_from__lte=now).order_by("-valid_from")


class PriceInline(ReadOnly, TabularInline):
    """The history of a price. It changes only by "Set price", which ends one row and begins another."""

    model = Price
    fields = ("valid_from", "valid_to", "holds_for", "input", "cached_input", "cache_write", "output", "source")
    readonly_fields = fields
    verbose_name_plural = _("prices per million tokens")
    hide_title = True
    extra = 0
    max_num = 0

    @display(description=_("For"))
    def holds_for(self, row: Price) -> str:
        return row.tier.lstrip(", ") or gettext("everything")

    @display(description=_("Input"))
    def input(self, row: Price) -> str:
        return amount(row.input_micros, row.currency)

    @display(description=_("Cached input"))
    def cached_input(self, row: Price) -> str:
        return amount(row.cached_input_micros, row.currency)

    @display(description=_("Cache write"))
    def cache_write(self, row: Price) -> str:
        return amount(row.cache_write_micros, row.currency)

    @display(description=_("Output"))
    def output(self, row: Price) -> str:
        return amount(row.output_micros, row.currency)


@admin.register(LLMModel)
class LLMModelAdmin(Pages, ModelAdmin):
    when_empty = _("No model yet. Open a provider and choose “Sync models”, or add one by hand.")
    list_display = ("alias", "provider", "model_id", "model_type", "active", "price_now", "priority")
    list_filter = ("is_active", "model_type", "provider")
    list_select_related = ("provider",)
    search_fields = ("alias", "model_id", "provider__name")
    inlines = (PriceInline,)
    actions_detail = ("set_price",)
    actions_list = ("import_prices",)
    fieldsets = (
        (None, {"fields": ("alias", ("provider", "model_id"), ("model_type", "visibility"), "is_active")}),
        (_("Choosing among several"), {"fields": (("priority", "quality"),)}),
        (_("Limits"), {"fields": (("requests_per_minute", "tokens_per_minute"), "max_concurrency")}),
        (_("Giving answers again"), {"fields": ("cache_ttl_s",)}),
        (_("What does not fit"), {"fields": (("unsupported_params", "over_long"),)}),
        (_("What it can do"), {"fields": (("context_window", "max_output_tokens"), "capabilities", "last_test"), "classes": ("collapse",)}),
    )
    readonly_fields = ("last_test",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LLMModel]:
        return super().get_queryset(request).prefetch_related(Prefetch("prices", queryset=_in_force(), to_attr="prices_now"))

    def save_model(self, request: HttpRequest, obj: LLMModel, form: Any, change: bool) -> None:
        if "is_active" in form.changed_data:
            services.keep_from_sync(obj)
        super().save_model(request, obj, form, change)
        if not obj.is_active:
            self._tell_of_routes(request, obj)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        row = self.get_object(request, object_id) if request.method == "GET" else None
        if row is not None:
            self._tell_of_routes(request, row)
        return super().delete_view(request, object_id, extra_context)

    @staticmethod
    def _tell_of_routes(request: HttpRequest, row: LLMModel) -> None:
        if routes := dark.routes_that_lose(row):
            told_of = {"alias": row.alias, "routes": ", ".join(routes)}
            messages.warning(request, gettext("Without %(alias)s, these routes have one model less to ask: %(routes)s.") % told_of)

    @display(description=_("Status"), label={"on": "success", "off": "danger", "provider off": "warning"})
    def active(self, row: LLMModel) -> str:
        if not row.is_active:
            return "off"
        return "on" if row.provider.is_active else "provider off"

    @display(description=_("Price now, in / out"))
    def price_now(self, row: Any) -> str:
        price = next((price for price in row.prices_now if not price.tier), None)
        if price is None:
            return gettext("unknown")
        return f"{amount(price.input_micros, '')} / {amount(price.output_micros, price.currency)}"

    @display(description=_("Last connection test"))
    def last_test(self, row: LLMModel) -> str:
        if row.tested_at is None:
            return gettext("never")
        found = ", ".join(f"{check} {result.replace('_', ' ')}" for check, result in row.tested.items())
        return f"{timezone.localtime(row.tested_at):%Y-%m-%d %H:%M}: {found}"

    def get_inlines(self, request: HttpRequest, obj: LLMModel | None) -> tuple[type[TabularInline], ...]:
        return self.inlines if obj else ()

    # Set price ------------------------------------------------------------------------------------------------------
    def has_set_price_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("models_registry.add_price"))

    @action(description=_("Set price"), permissions=["set_price"], icon="payments", url_path="price")
    def set_price(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model = self.found(request, object_id)
        form = SetPriceForm(request.POST or None)
        if form.is_valid():
            try:
                services.set_price(model, **form.arguments())
            except ValidationError as refused:
                show_refusal(form, refused)
            else:
                self.log_change(request, model, "Set a new price.")
                messages.success(request, f"{model} has a new price.")
                return redirect(self.url_of(model))
        return self.page(request, "form.html", model, gettext("Set price"), form=form, verb=_("Set the price"))

    # Import prices --------------------------------------------------------------------------------------------------
    @action(description=_("Import prices"), permissions=["set_price"], icon="download", url_path="import-prices")
    def import_prices(self, request: HttpRequest) -> HttpResponse:
        """GET shows what the offline catalogue says otherwise; POST takes what was ticked, all of it or nothing."""
        if request.method == "POST":
            ticked = request.POST.getlist("accept")
            try:
                lines = price_file.from_catalogue(dry_run=False, accept=ticked)
            except price_file.PricesRefused as refused:
                messages.error(request, str(refused))
                return redirect(request.path)
            if refusals := [f"{line.provider} {line.model}: {line.note}" for line in lines if line.verb == "refused"]:
                messages.error(request, " ".join(["Nothing was changed.", *refusals]))
                return redirect(request.path)
            messages.success(request, f"{len(ticked)} price{'' if len(ticked) == 1 else 's'} set from the catalogue.")
            return redirect(f"{self.admin_site.name}:models_registry_llmmodel_changelist")
        return self._import_page(request, price_file.from_catalogue(dry_run=True, accept=()))

    def _import_page(self, request: HttpRequest, lines: list[price_file.Line]) -> TemplateResponse:
        proposed = [line for line in lines if line.price is not None]
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Import prices"),
            "original": gettext("from the catalogue"),
            "rows": [_difference(line) for line in proposed[:MAX_PROPOSALS_SHOWN]],
            "not_shown": max(0, len(proposed) - MAX_PROPOSALS_SHOWN),
            "unknown": [line for line in lines if line.price is None],
            "dates": catalogue.dates(),
            "back": reverse(f"{self.admin_site.name}:models_registry_llmmodel_changelist"),
        }
        return TemplateResponse(request, "admin/llmcontrol/import_prices.html", context)

    # Sync -----------------------------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        sync = path("sync/<uuid:provider_id>/", self.admin_site.admin_view(self.sync), name="models_registry_llmmodel_sync")
        return [sync, *super().get_urls()]

    def sync(self, request: HttpRequest, provider_id: str) -> HttpResponse:
        """GET asks the vendor and shows what would change; POST changes it."""
        if not request.user.has_perm("providers.sync_provider"):
            raise PermissionDenied
        provider = Provider.objects.filter(pk=provider_id).first()
        if provider is None:
            raise Http404("There is no provider with this id; it may have been deleted.")
        apply = request.method == "POST"
        try:
            difference = services.sync_models(provider, apply, _accepted(request) if apply else False)
        except (GatewayError, ValidationError, CannotOpen) as failed:
            return self._sync_page(request, provider, failure=_in_plain_words(failed))
        if not apply:
            return self._sync_page(request, provider, **_shown(difference, may_price=_may_price(request)))
        added, gone, changed = (len(rows) for rows in (difference.new, difference.gone, difference.changed))
        messages.success(request, f"Models of {provider}: {added} added, {gone} switched off, {changed} switched on again.")
        if taken := sum(len(fields) for fields in difference.taken.values()):
            messages.success(request, f"{taken} value{'' if taken == 1 else 's'} filled in from the catalogue.")
        return redirect(reverse(f"{self.admin_site.name}:models_registry_llmmodel_changelist") + f"?provider__id__exact={provider.pk}")

    def _sync_page(self, request: HttpRequest, provider: Provider, **context: Any) -> TemplateResponse:
        back = reverse(f"{self.admin_site.name}:providers_provider_change", args=[provider.pk])
        return self.page(request, "sync_models.html", provider, gettext("Sync models"), opts=Provider._meta, back=back, **context)


@admin.register(Route)
class RouteAdmin(ModelAdmin):
    when_empty = _("No route yet. A route is a name for several models: what is asked first, and what when that fails.")
    form = RouteForm
    list_display = ("alias", "active", "chain", "description")
    list_filter = ("is_active",)
    search_fields = ("alias", "description")
    fieldsets = (
        (None, {"fields": ("alias", "description", "visibility", "is_active", "task_types")}),
        (_("What is tried"), {"fields": ("targets", ("strategy", "weights"), "fallbacks")}),
        (_("When all of it fails"), {"fields": ("degrade_to", "fixed_answer", "chain")}),
        (_("Giving answers again"), {"fields": ("cache_ttl_s",)}),
    )
    readonly_fields = ("chain",)

    @display(description=_("Status"), label={"on": "success", "off": "danger"})
    def active(self, row: Route) -> str:
        return "on" if row.is_active else "off"

    def save_model(self, request: HttpRequest, obj: Route, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if names := dark.unanswered(obj):
            messages.warning(
                request, gettext("No model that is on has the name %s: the route skips it until one is switched on.") % ", ".join(names)
            )

    @display(description=_("In plain words"))
    def chain(self, row: Route) -> str:
        try:
            return "; ".join(map(told, chains.steps_of(row.spec()))) or gettext("nothing yet")
        except ValueError as error:
            return told(str(error))


@admin.register(ExchangeRate)
class ExchangeRateAdmin(ModelAdmin):
    """Rates are added and never changed; each is in force until the next one of its two currencies."""

    when_empty = _("No exchange rate yet. It is needed where prices are in another currency than reports.")

    form = ExchangeRateForm
    list_display = ("base", "quote", "worth", "valid_from", "source")
    list_filter = ("base", "quote")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("base", "quote", "worth" if obj else "rate", "valid_from", "source")

    @display(description=_("Rate"))
    def worth(self, row: ExchangeRate) -> str:
        return row.rate

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        for sentence in unconvertible():
            messages.warning(request, sentence)
        return super().changelist_view(request, extra_context)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _may_price(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("models_registry.add_price"))


def _accepted(request: HttpRequest) -> bool | dict[str, list[str]]:
    """What was ticked: everything, or fields by model id. Raises PermissionDenied for a price that this user may not set."""
    everything = "accept_all" in request.POST
    ticked: dict[str, list[str]] = {}
    for value in request.POST.getlist("accept"):
        name, _, model_id = value.partition(" ")
        ticked.setdefault(model_id, []).append(name)
    if not _may_price(request) and (everything or any("per_million" in names for names in ticked.values())):
        raise PermissionDenied
    return everything or ticked


def _shown(difference: SyncDiff, *, may_price: bool) -> dict[str, Any]:
    """The page's context: a long list of proposals is shown in part, because a form may not have that many boxes."""
    changed = bool(difference.new or difference.gone or difference.changed)
    return {
        "difference": difference,
        "same": not changed and not difference.proposals,
        "changed": changed,
        "proposals": [_row(proposal) for proposal in difference.proposals[:MAX_PROPOSALS_SHOWN]],
        "not_shown": max(0, len(difference.proposals) - MAX_PROPOSALS_SHOWN),
        "may_price": may_price,
        "dates": catalogue.dates() if difference.proposals else "",
    }


def _difference(line: price_file.Line) -> dict[str, Any]:
    new, old = line.price, line.latest
    return {
        "line": line,
        "tier": new.tier.lstrip(", ") if new else "",
        "now": f"{amount(old.input_micros, '')} / {amount(old.output_micros, old.currency)}" if old else gettext("unknown"),
        "then": f"{amount(new.input_micros, '')} / {amount(new.output_micros, new.currency)}" if new else "",
        "others": "; ".join(filter(None, price_file.notes(line)[2:-1])),
    }


def _row(proposal: Proposal) -> dict[str, Any]:
    shown = {
        "context_window": proposal.context_window,
        "max_output_tokens": proposal.max_output_tokens,
        "capabilities": ", ".join(proposal.capabilities),
        "per_million": ", ".join(f"{bucket} {text}" for bucket, text in proposal.per_million.items()),
    }
    return {"proposal": proposal, "cells": [(name, shown[name]) for name in catalogue.FIELDS]}


def _in_plain_words(failed: Exception) -> str:
    if isinstance(failed, GatewayError):
        return failed.message
    return " ".join(failed.messages) if isinstance(failed, ValidationError) else str(failed)


from models_registry import prompt_admin  # noqa: E402, F401  (Django looks for admin classes in this file alone)
