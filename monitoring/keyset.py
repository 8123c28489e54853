"""Paging through tables that only grow: by the id of the row at the edge, so that page 10,000 costs what page 1 costs."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.views import ChangeList

_BIGGEST_ID = 2**63 - 1
_BIGGEST_ID_DIGITS = 19  # Python refuses to read a number of thousands of digits


class OnePage(Paginator):
    """The rows of this page, counted in memory. `template_name` is what the theme draws below the list."""

    template_name = "admin/llmcontrol/keyset.html"


class KeysetChangeList(ChangeList):
    """Newest first. `?before=ID` shows the rows older than ID, `?after=ID` the nearest newer ones; no COUNT, no OFFSET."""

    older: str | None = None
    newer: str | None = None
    newest: str | None = None

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Model]:
        # Out of the parameters, so that a link to another filter starts at the newest row again.
        self.before, self.after = (_row_id(self.filter_params.pop(name, None)) for name in ("before", "after"))
        for name in ("before", "after"):
            self.params.pop(name, None)
        return super().get_queryset(request, exclude_parameters)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Model]) -> list[str]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        before, after, size = self.before, self.after, self.list_per_page
        if after is not None:
            rows = list(self.queryset.filter(pk__gt=after).order_by("pk")[: size + 1])
            has_newer, has_older = len(rows) > size, True
            rows = rows[:size][::-1]
        else:
            older = self.queryset if before is None else self.queryset.filter(pk__lt=before)
            rows = list(older[: size + 1])
            has_newer, has_older = before is not None, len(rows) > size
            rows = rows[:size]
        if rows:
            self.newer = self.get_query_string({"after": rows[0].pk}) if has_newer else None
            self.older = self.get_query_string({"before": rows[-1].pk}) if has_older else None
        self.newest = self.get_query_string() if before is not None or after is not None else None
        self._one_page(rows)

    def _one_page(self, rows: list[Model]) -> None:
        """What Django's templates expect to find."""
        self.result_list = rows
        self.result_count = self.full_result_count = len(rows)
        self.paginator = OnePage(rows, self.list_per_page)
        self.page_num = 1
        self.show_full_result_count = self.show_admin_actions = self.can_show_all = self.multi_page = False


def _row_id(values: Any) -> int | None:
    """A cursor from the address bar; anything that is no row id starts at the newest."""
    text = values[-1] if isinstance(values, list) and values else ""
    is_number = text.isascii() and text.isdecimal() and len(text) <= _BIGGEST_ID_DIGITS
    return int(text) if is_number and int(text) <= _BIGGEST_ID else None
