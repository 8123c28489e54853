"""What happened, for reading: requests, and the attempts at vendors behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from monitoring import bodies
from monitoring.body_queue import AttemptHeaders, Pairs
from monitoring.columns import display
from monitoring.explain import attempts_of, chosen, explanation
from monitoring.filters import (
    Between,
    KeyNamed,
    ModelNamed,
    Outcome,
    PromptNamed,
    ProviderNamed,
    Since,
    StatusCode,
    Tagged,
    TeamNamed,
    UserNamed,
)
from monitoring.keyset import KeysetChangeList
from monitoring.live import Live
from monitoring.models import RequestLog, UsageRecord
from monitoring.pages import ReadOnly, amount
from monitoring.saved_filters import SavesFilters
from monitoring.signals import provider_key_names_wanted, request_links_wanted
from monitoring.timeline import Bar, meaning, timeline

_SHORT_ID, _ITS_END = 14, 9  # ids of one process begin alike


def milliseconds(value: int | None) -> str:
    return "–" if value is None else f"{value:,} ms"


class Ledger(ReadOnly, ModelAdmin):
    """A list that grows for ever: read-only, newest first, paged by row id."""

    actions: Any = None
    list_per_page = 50
    list_filter_submit = True
    list_fullwidth = True
    actions_detail_hide_default = True
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    ordering = ("-id",)
    search_fields: tuple[str, ...] = ("request_id__exact",)
    search_help_text = _("A whole request id")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        return KeysetChangeList

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> tuple[QuerySet[Any], bool]:
        return super().get_search_results(request, queryset, search_term.strip())

    @display(description=_("Started"))
    def when(self, row: Any) -> str:
        return f"{timezone.localtime(row.started_at):%Y-%m-%d %H:%M:%S}"

    @display(description=_("Request"))
    def short_id(self, row: Any) -> str:
        whole = str(row.request_id)
        return whole if len(whole) <= _SHORT_ID else f"{whole[: _SHORT_ID - _ITS_END - 1]}…{whole[-_ITS_END:]}"

    @display(description=_("Cost"))
    def cost(self, row: Any) -> str:
        return amount(row.cost_micros, row.currency)

    @display(description=_("Took"))
    def took(self, row: Any) -> str:
        return milliseconds(row.duration_ms)

    @display(description=_("First token"))
    def first_token(self, row: Any) -> str:
        return milliseconds(row.first_token_ms)

    @display(description=_("Streamed"))
    def mode(self, row: Any) -> str:
        return gettext("yes") if row.streamed else gettext("no")

    @display(description=_("Vendor's model"))
    def sent_to(self, row: Any) -> str:
        return row.model_id or "–"


@admin.register(RequestLog)
class RequestLogAdmin(SavesFilters, Live, Ledger):
    when_empty = _("No request yet. Make an API key, and call a model with it: the request is here a second later.")
    list_display = ("when", "short_id", "team_name", "key_name", "alias", "provider_name", "status", "total_tokens", "cost", "took")
    list_display_links = ("when", "short_id")
    list_filter = (
        *(Since, ("started_at", Between), Outcome, StatusCode, TeamNamed, KeyNamed, ModelNamed, ProviderNamed),
        *(UserNamed, Tagged, PromptNamed),
    )
    fieldsets = (
        (None, {"fields": (("request_id", "when"), ("status_code", "error_code"), "error_message")}),
        (_("Caller"), {"fields": (("team_name", "key_name"), ("end_user", "tag"), ("task_type", "dialect", "mode"))}),
        (
            _("Answer"),
            {
                "fields": (
                    ("alias", "provider_name"),
                    ("sent_to", "route_decision"),
                    ("attempts", "config_version"),
                    ("total_tokens", "cost"),
                    ("cache", "saved"),
                    ("trace_id", "given_again"),
                    ("took", "first_token"),
                    ("prompt_name", "prompt_version"),
                    "dropped",
                )
            },
        ),
    )
    readonly_fields = ("when", "cost", "saved", "took", "first_token", "sent_to", "mode", "route_decision", "given_again")
    change_form_after_template = "admin/llmcontrol/attempts.html"
    list_before_template = "admin/llmcontrol/requests_list.html"

    @display(description=_("Status"), label={"ok": "success", "refused": "warning", "left": "info", "failed": "danger"})
    def status(self, row: RequestLog) -> tuple[str, str]:
        code = row.status_code
        kind = "ok" if code < 400 else "left" if code == 499 else "refused" if code < 500 else "failed"
        return kind, str(code)

    @display(description=_("Cost"))
    def cost(self, row: RequestLog) -> str:
        """A request that no vendor saw cost nothing; that is not the same as a price we do not know."""
        return super().cost(row) if row.attempts or row.cost_micros is not None else "–"

    @display(description=_("Saved"))
    def saved(self, row: RequestLog) -> str:
        return "–" if row.saved_micros is None else amount(row.saved_micros, row.currency)

    @display(description=_("Given again"))
    def given_again(self, row: RequestLog) -> str:
        return gettext("yes: the answer to another request with its Idempotency-Key") if row.replayed else gettext("no")

    @display(description=_("Route decision"))
    def route_decision(self, row: RequestLog) -> str:
        if not row.decision:
            return gettext("The request named its model")
        return format_html('<a class="text-primary-600 dark:text-primary-500" href="#why">{}</a>', chosen(row))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        context = self._told(request, row) if row else {}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def _told(self, request: HttpRequest, row: RequestLog) -> dict[str, Any]:
        attempts = attempts_of(row)
        drawn = timeline(row, attempts)
        keys = _key_names(attempts) if request.user.has_perm("providers.view_providerkey") else None
        shown = [_shown(attempt, bars, keys) for attempt, bars in zip(attempts, drawn.attempts, strict=True)]
        context: dict[str, Any] = {
            "attempts": shown,
            "timeline": drawn,
            "explanation": explanation(row, attempts) if row.decision else None,
        }
        if request.user.has_perm("monitoring.view_requestbody"):
            found: Any = request_links_wanted.send(type(self), row=row, user=request.user)
            links = [link for _, offered in found for link in offered]
            context |= {"bodies_kept": bodies.kept(row), "headers": _headers(row, attempts), "links": links, **bodies_kept_how()}
        return context

    def get_urls(self) -> list[URLPattern]:
        page = path("<path:object_id>/bodies/", self.admin_site.admin_view(self.bodies), name="monitoring_requestlog_bodies")
        return [page, *super().get_urls()]

    def bodies(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """One request's, for those with a permission of its own; that they were read is recorded."""
        row = self.found(request, object_id)
        if not request.user.has_perm("monitoring.view_requestbody"):
            raise PermissionDenied
        found = bodies.read(row)
        parts = (
            ((gettext("Asked"), found.request, found.request_bytes), (gettext("Answered"), found.response, found.response_bytes))
            if found
            else ()
        )
        kept = [(name, bodies.shown(text, size)) for name, text, size in parts]
        title = gettext("What was asked and answered")
        return self.page(request, "bodies.html", row, title, kept=kept, **bodies_kept_how())


def _headers(row: RequestLog, attempts: Sequence[UsageRecord]) -> list[tuple[str, Pairs]]:
    """Whose they are, and name and value of each; [] = none are kept."""
    found = bodies.headers(row)
    if found is None:
        return []
    names = {attempt.attempt: attempt.provider_name for attempt in attempts}
    return [
        (gettext("Sent by the client"), found.request),
        (gettext("Sent to the client"), found.response),
        *((_whose(each, names.get(each.attempt, "")), each.headers) for each in found.attempts),
    ]


def _whose(of: AttemptHeaders, provider: str) -> str:
    words = (
        gettext("Attempt %(number)s: answer of %(provider)s, HTTP %(status)s")
        if of.status
        else gettext("Attempt %(number)s: no answer of %(provider)s")
    )
    return words % {"number": of.attempt, "provider": provider or gettext("the vendor"), "status": of.status}


def bodies_kept_how() -> dict[str, Any]:
    """For the sentence that says how bodies come to be kept."""
    return {"bodies_max_bytes": settings.BODY_MAX_BYTES, "bodies_days": settings.BODY_RETENTION_DAYS}


def _key_names(attempts: Sequence[UsageRecord]) -> dict[str, str]:
    ids = {attempt.provider_key_id for attempt in attempts}
    found: Any = provider_key_names_wanted.send(UsageRecord, ids=ids)
    return {key: name for _, names in found for key, name in names.items()}


def _shown(attempt: UsageRecord, bars: Sequence[Bar], keys: Mapping[str, str] | None) -> dict[str, Any]:
    """`keys` None: not to be seen."""
    return {
        "row": attempt,
        "bars": bars,
        "key": None
        if keys is None
        else keys.get(attempt.provider_key_id, gettext("deleted") if attempt.provider_key_id else gettext("none")),
        "meaning": meaning(attempt),
        "cost": amount(attempt.cost_micros, attempt.currency),
        "took": milliseconds(attempt.duration_ms),
        "first_token": milliseconds(attempt.first_token_ms),
        "kind": UsageRecordAdmin.STATUS_KINDS[attempt.status],
    }


@admin.register(UsageRecord)
class UsageRecordAdmin(SavesFilters, Ledger):
    when_empty = _("No call of a vendor yet. Each attempt is here with its tokens and what it cost.")
    STATUS_KINDS = {"ok": "success", "error": "danger", "client_closed": "info", "interrupted": "warning"}

    list_display = (
        "when",
        "short_id",
        "attempt",
        "team_name",
        "key_name",
        "alias",
        "provider_name",
        "outcome",
        "input_tokens",
        "output_tokens",
        "cost",
        "took",
    )
    list_display_links = ("when", "short_id")
    list_filter = (
        Since,
        ("started_at", Between),
        "status",
        TeamNamed,
        KeyNamed,
        ModelNamed,
        ProviderNamed,
        UserNamed,
        Tagged,
        "usage_source",
    )
    fieldsets = (
        (None, {"fields": (("request_id", "attempt"), ("when", "status"), ("error_code", "vendor_status"), "finish_reason")}),
        (
            _("Caller and vendor"),
            {"fields": (("team_name", "key_name"), ("end_user", "tag"), ("alias", "provider_name"), ("sent_to", "mode"))},
        ),
        (
            _("Tokens and money"),
            {
                "fields": (
                    ("input_tokens", "cached_input_tokens"),
                    ("output_tokens", "reasoning_tokens"),
                    ("cache_write_tokens", "cache_write_1h_tokens"),
                    ("input_audio_tokens", "input_image_tokens"),
                    ("output_audio_tokens", "output_image_tokens"),
                    ("usage_source", "usage_refused"),
                    ("cost", "price_id"),
                )
            },
        ),
        (_("Time"), {"fields": (("took", "first_token"), "config_version")}),
    )
    readonly_fields = ("when", "cost", "took", "first_token", "sent_to", "mode")
    list_before_template = "admin/llmcontrol/saved_filters.html"

    @display(description=_("Status"), label=STATUS_KINDS)
    def outcome(self, row: UsageRecord) -> tuple[str, str]:
        return row.status, row.get_status_display()


from monitoring import audit_admin  # noqa: E402, F401  (Django looks for admin classes in this file alone)
