"""Requests as they are recorded, for whoever watches: a page whose script asks every few seconds for what is new.

It reads the log behind the gateway, with the filters of the list of requests and what that list shows to whom. So nothing on the
way of a request knows of it, and a request appears when it has ended and its record has been drained.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import label_for_field
from django.contrib.messages import get_messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext

from monitoring.filters import Outcome
from monitoring.keyset import KeysetChangeList
from monitoring.models import RequestLog
from monitoring.pages import Pages
from monitoring.sentences import told

AT_ONCE: Final = 100
_FIELDS: Final = ("team", "model", "outcome", "code")
_PAGING: Final = ("before", "after")


class LiveChangeList(KeysetChangeList):
    """The newest rows after `?after=ID`, newest first; what more there is in between is left out."""

    def get_results(self, request: HttpRequest) -> None:
        rows = self.queryset if self.after is None else self.queryset.filter(pk__gt=self.after)
        self._one_page(list(rows.defer("decision")[: AT_ONCE + 1]))


class Live(Pages):
    """For the admin of requests: the page `live/` beside its list."""

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
        """JSON: `rows`, newest first; `last`, the id of the newest there is, whatever the filters; `more`, whether some were left out."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        last = self.get_queryset(request).order_by("-pk").values_list("pk", flat=True).first()
        try:
            found = self.get_changelist_instance(request).result_list
        except IncorrectLookupParameters:
            return JsonResponse({"error": gettext("One of the filters is not known here.")}, status=400)
        if refused := [told(str(message)) for message in get_messages(request)]:
            return JsonResponse({"error": " ".join(refused)}, status=400)
        rows = [self._live_row(row) for row in found[:AT_ONCE]]
        return JsonResponse({"rows": rows, "last": last or 0, "more": len(found) > AT_ONCE})

    def _live_row(self, row: RequestLog) -> dict[str, Any]:
        cells = [getattr(self, name)(row) if hasattr(self, name) else getattr(row, name) for name in self.list_display]
        url = reverse(f"{self.admin_site.name}:monitoring_requestlog_change", args=[row.pk])
        return {"id": row.pk, "url": url, "cells": [_cell(cell) for cell in cells]}


def _cell(value: Any) -> dict[str, str]:
    """`kind` is that of a label; "" = plain text."""
    kind, text = value if isinstance(value, tuple) else ("", f"{value:,}" if isinstance(value, int) else str(value))
    return {"kind": kind, "text": text}
