"""Paging through tables that only grow: from the row at the edge on, so that page 10,000 costs what page 1 costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.views import ChangeList

_BIGGEST_ID = 2**63 - 1
_BIGGEST_ID_DIGITS = 19  # Python refuses to read a number of thousands of digits


class OnePage(Paginator):
    """The rows of this page, counted in memory. `template_name` is what the theme draws below the list."""

    template_name = "admin/llmcontrol/keyset.html"


class Edge(NamedTuple):
    """The row at which a page ends: its id, and where ids are random the moment by which they are in order."""

    pk: Any
    moment: datetime | None = None

    def __str__(self) -> str:
        return f"{self.moment.isoformat()}_{self.pk}" if self.moment else str(self.pk)


class KeysetChangeList(ChangeList):
    """Newest first: by row id, or by the column that the admin class names as `newest_by`. `?before=EDGE` shows the rows older than that,
    `?after=EDGE` the nearest newer ones; no COUNT, no OFFSET."""

    older: str | None = None
    newer: str | None = None
    newest: str | None = None

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Model]:
        # Out of the parameters, so that a link to another filter starts at the newest row again.
        self.before, self.after = (self._edge(self.filter_params.pop(name, None)) for name in ("before", "after"))
        for name in ("before", "after"):
            self.params.pop(name, None)
        return super().get_queryset(request, exclude_parameters)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Model]) -> list[str]:
        return [f"-{column}" for column in self._columns()]

    def get_results(self, request: HttpRequest) -> None:
        before, after, size = self.before, self.after, self.list_per_page
        if after is not None:
            rows = list(self._beyond(after, "gt").order_by(*self._columns())[: size + 1])
            has_newer, has_older = len(rows) > size, True
            rows = rows[:size][::-1]
        else:
            older = self.queryset if before is None else self._beyond(before, "lt")
            rows = list(older[: size + 1])
            has_newer, has_older = before is not None, len(rows) > size
            rows = rows[:size]
        if rows:
            self.newer = self.get_query_string({"after": str(self._edge_at(rows[0]))}) if has_newer else None
            self.older = self.get_query_string({"before": str(self._edge_at(rows[-1]))}) if has_older else None
        self.newest = self.get_query_string() if before is not None or after is not None else None
        self._one_page(rows)

    def _columns(self) -> list[str]:
        return [*([self._moment] if self._moment else []), "pk"]

    @property
    def _moment(self) -> str:
        return getattr(self.model_admin, "newest_by", "")

    def _beyond(self, edge: Edge, side: str) -> QuerySet[Any]:
        """`side`: lt | gt. A moment may be that of several rows."""
        if edge.moment is None:
            return self.queryset.filter(**{f"pk__{side}": edge.pk})
        not_beyond = {self._moment: edge.moment, "pk__gte" if side == "lt" else "pk__lte": edge.pk}
        return self.queryset.filter(**{f"{self._moment}__{side}e": edge.moment}).exclude(**not_beyond)

    def _edge_at(self, row: Model) -> Edge:
        return Edge(row.pk, getattr(row, self._moment) if self._moment else None)

    def _edge(self, values: Any) -> Edge | None:
        """From the address bar; anything that is no edge starts at the newest row."""
        text = values[-1] if isinstance(values, list) and values else ""
        if not self._moment:
            is_number = text.isascii() and text.isdecimal() and len(text) <= _BIGGEST_ID_DIGITS
            return Edge(int(text)) if is_number and int(text) <= _BIGGEST_ID else None
        moment, _, pk = text.partition("_")
        try:
            return Edge(UUID(pk), datetime.fromisoformat(moment).astimezone(UTC))
        except (ValueError, OverflowError):
            return None

    def _one_page(self, rows: list[Model]) -> None:
        """What Django's templates expect to find."""
        self.result_list = rows
        self.result_count = self.full_result_count = len(rows)
        self.paginator = OnePage(rows, self.list_per_page)
        self.page_num = 1
        self.show_full_result_count = self.show_admin_actions = self.can_show_all = self.multi_page = False
