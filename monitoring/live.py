"""Requests as they come and end, for whoever watches: a page whose script asks every few seconds for what is new.

It reads the log behind the gateway, with the filters of the list of requests and what that list shows to whom; and which requests are
under way, as processes say while somebody watches (`monitoring.open_requests`). Nothing on the way of a request knows of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import label_for_field
from django.contrib.messages import get_messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext

from monitoring import open_requests
from monitoring.filters import KeyNamed, ModelNamed, Outcome, ProviderNamed, Tagged, TeamNamed, UserNamed
from monitoring.keyset import KeysetChangeList
from monitoring.models import OpenRequest, RequestLog
from monitoring.pages import Pages
from monitoring.sentences import told

AT_ONCE: Final = 100
_FIELDS: Final = ("team", "model", "outcome", "code")
_PAGING: Final = ("before", "after")
# Of a request that has not ended only this much is known.
_OF_OPEN: Final = {named.parameter_name: named.column for named in (TeamNamed, KeyNamed, ModelNamed, ProviderNamed, UserNamed, Tagged)}


class LiveChangeList(KeysetChangeList):
    """The newest rows after `?after=ID`, newest first; what more there is in between is left out."""

    def get_results(self, request: HttpRequest) -> None:
        rows = self.queryset if self.after is None else self.queryset.filter(pk__gt=self.after.pk)
        self._one_page(list(rows.defer("decision")[: AT_ONCE + 1]))


class Live(Pages):
    """For the admin of requests: the page `live/` beside its list."""

    if TYPE_CHECKING:

        def seen(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
            """See `access.admin_site.Scoped`, which stands below every admin."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        match = request.resolver_match
        asked = match is not None and match.url_name == "monitoring_requestlog_live_rows"
        return LiveChangeList if asked else super().get_changelist(request, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        pages = [("live/", self.live, "live"), ("live/rows", self.live_rows, "live_rows")]
        own = [path(at, self.admin_site.admin_view(view), name=f"monitoring_requestlog_{name}") for at, view, name in pages]
        return [*own, *super().get_urls()]

    def live(self, request: HttpRequest) -> HttpResponse:
        """The page itself, with no row yet."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        query = request.GET.copy()
        for name in _PAGING:
            query.pop(name, None)
        request.current_app = self.admin_site.name
        context = {
            "title": gettext("Live requests"),
            "opts": self.opts,
            "columns": [label_for_field(name, RequestLog, self) for name in self.list_display],
            "asked": {name: query.get(name, "") for name in _FIELDS},
            "others": [(name, value) for name, values in query.lists() if name not in _FIELDS for value in values],
            "outcomes": Outcome.choices_offered,
            "query": query.urlencode(),
            "at_once": AT_ONCE,
        }
        return TemplateResponse(request, "admin/llmcontrol/live.html", {**self.admin_site.each_context(request), **context})

    def live_rows(self, request: HttpRequest) -> HttpResponse:
        """JSON: `rows`, newest first; `last`, the id of the newest there is, whatever the filters; `more`, whether some were left out.
        `open`: requests under way, newest first, None = the filters ask for what only those that have ended have; `more_open` as `more`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        now = timezone.now()
        begun = self._open(request, now)  # before those that have ended: what ends meanwhile is in both, and never in none
        last = self.get_queryset(request).order_by("-pk").values_list("pk", flat=True).first()
        try:
            found = self.get_changelist_instance(request).result_list
        except IncorrectLookupParameters:
            return JsonResponse({"error": gettext("One of the filters is not known here.")}, status=400)
        if refused := [told(str(message)) for message in get_messages(request)]:
            return JsonResponse({"error": " ".join(refused)}, status=400)
        rows = [self._live_row(row) for row in found[:AT_ONCE]]
        under_way = None if begun is None else [self._open_row(row, now) for row in reversed(begun[:AT_ONCE])]
        more_open = begun is not None and len(begun) > AT_ONCE
        return JsonResponse({"rows": rows, "last": last or 0, "more": len(found) > AT_ONCE, "open": under_way, "more_open": more_open})

    def _open(self, request: HttpRequest, now: datetime) -> list[OpenRequest] | None:
        """The longest ones first, one more than are shown if there are more."""
        asked = {name: text for name, value in request.GET.items() if name not in _PAGING and (text := str(value).strip())}
        if not asked.keys() <= _OF_OPEN.keys():
            return None
        open_requests.want(now)
        told = self.seen(request, open_requests.told(now).filter(**{_OF_OPEN[name]: value for name, value in asked.items()}))
        begun = list(told.order_by("started_at", "pk")[: AT_ONCE + 1])
        if not begun:
            return []
        ids = [row.request_id for row in begun]
        ended = set(RequestLog.objects.filter(request_id__in=ids).values_list("request_id", flat=True)[: len(ids)])
        return [row for row in begun if row.request_id not in ended]

    def _open_row(self, row: OpenRequest, now: datetime) -> dict[str, Any]:
        known = {"when": ("age", self._made("when", row)), "short_id": self._made("short_id", row), "status": ("open", _so_far(row))}
        cells = [known.get(name, getattr(row, name, "–")) for name in self.list_display]
        age_s = max(0.0, (now - row.started_at).total_seconds())
        return {"key": f"{row.request_id}-{row.attempt}", "age_s": round(age_s, 1), "cells": [_cell(cell) for cell in cells]}

    def _live_row(self, row: RequestLog) -> dict[str, Any]:
        cells = [getattr(self, name)(row) if hasattr(self, name) else getattr(row, name) for name in self.list_display]
        url = reverse(f"{self.admin_site.name}:monitoring_requestlog_change", args=[row.pk])
        return {"id": row.pk, "url": url, "cells": [_cell(cell) for cell in cells]}

    def _made(self, column: str, row: OpenRequest) -> str:
        """As of one that has ended."""
        made: str = getattr(self, column)(row)
        return made


def _so_far(row: OpenRequest) -> str:
    words = gettext("in progress, streamed") if row.streamed else gettext("in progress")
    return words if row.attempt == 1 else gettext("%(so_far)s, attempt %(number)s") % {"so_far": words, "number": row.attempt}


def _cell(value: Any) -> dict[str, str]:
    """`kind` is that of a label; "" = plain text, "age" = when it began, for which the script says how long ago."""
    kind, text = value if isinstance(value, tuple) else ("", f"{value:,}" if isinstance(value, int) else str(value))
    return {"kind": kind, "text": text}
