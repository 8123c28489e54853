"""Filters of the admin's lists that people keep under a name, for themselves or, with a permission, for everybody."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, path, reverse

from monitoring.models import SavedFilter
from monitoring.pages import Pages

SHARING: Final = "monitoring.share_savedfilter"
MAX_OF_ONE: Final = 50
_SHOWN: Final = 200
# Where in the list somebody was is no part of the filter.
_PAGING: Final = ("before", "after", "p", "o", "e", "all", "_facets", "_changelist_filters")


def offered(user: Any, listing: str) -> QuerySet[SavedFilter]:
    """One's own, and those that are shared."""
    return SavedFilter.objects.filter(Q(owner=user.pk) | Q(shared=True), listing=listing).select_related("owner")


def removable(user: Any, listing: str) -> QuerySet[SavedFilter]:
    """One's own; shared ones of others by who may share."""
    own = Q(owner=user.pk)
    return SavedFilter.objects.filter(own | Q(shared=True) if user.has_perm(SHARING) else own, listing=listing)


def save(user: Any, listing: str, name: str, query: str, *, shared: bool = False) -> SavedFilter:
    """One's own filter of that name is replaced. Raises ValidationError, and PermissionDenied for sharing what may not be shared."""
    if shared and not user.has_perm(SHARING):
        raise PermissionDenied
    name = " ".join(name.split())
    if not name or len(name) > SavedFilter.MAX_NAME or not name.isprintable():
        raise ValidationError(f"The name of a filter has 1 to {SavedFilter.MAX_NAME} characters; choose another one.")
    if not query:
        raise ValidationError("No filter is set, so there is nothing to save: choose one first.")
    if len(query) > SavedFilter.MAX_QUERY:
        raise ValidationError(f"This filter is longer than {SavedFilter.MAX_QUERY} characters; leave some of it out.")
    own = SavedFilter.objects.filter(owner=user.pk, listing=listing)
    if own.count() >= MAX_OF_ONE and not own.filter(name=name).exists():
        raise ValidationError(f"You have {MAX_OF_ONE} filters on this list, which is the most; delete one first.")
    values = {"query": query, "shared": shared}
    row, _ = SavedFilter.objects.update_or_create(owner=user, listing=listing, name=name, defaults=values)
    return row


def without_paging(query: str) -> str:
    """What an address says of the filter, encoded anew. Raises ValidationError where it says too much."""
    if len(query) > 2 * SavedFilter.MAX_QUERY:
        raise ValidationError(f"This filter is longer than {SavedFilter.MAX_QUERY} characters; leave some of it out.")
    kept = QueryDict(mutable=True)
    for name, values in QueryDict(query).lists():
        if name not in _PAGING and any(values):
            kept.setlist(name, [value for value in values if value])
    return kept.urlencode()


class SavesFilters(Pages):
    """For admins of one of `SavedFilter.List`, whose `list_before_template` includes saved_filters.html."""

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        saving, deleting = (self.admin_site.admin_view(view) for view in (self.save_filter, self.delete_filter))
        return [
            path("filters/", saving, name=f"{name}_filters"),
            path("filters/<int:filter_id>/delete/", deleting, name=f"{name}_filter_delete"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context: dict[str, Any] = {}
        if self.has_view_permission(request):
            may_share = request.user.has_perm(SHARING)
            shown = [self._shown(request, row, may_share) for row in offered(request.user, self._listing)[:_SHOWN]]
            context = {"saved_filters": shown, "may_share": may_share, "save_url": self._url("filters")}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def _shown(self, request: HttpRequest, row: SavedFilter, may_share: bool) -> dict[str, Any]:
        mine = row.owner_id == request.user.pk
        return {"row": row, "mine": mine, "delete_url": self._url("filter_delete", row.pk) if mine or may_share else None}

    def save_filter(self, request: HttpRequest) -> HttpResponse:
        """POST: `name`, `query` as it stands in the list's address, `shared`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        query = ""
        try:
            query = without_paging(request.POST.get("query", ""))
            row = save(request.user, self._listing, request.POST.get("name", ""), query, shared="shared" in request.POST)
        except ValidationError as refused:
            messages.error(request, " ".join(refused.messages))
        else:
            messages.success(request, f"The filter “{row.name}” is saved.")
        return HttpResponseRedirect(f"{self._url('changelist')}{query and '?'}{query}")

    def delete_filter(self, request: HttpRequest, filter_id: int) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = removable(request.user, self._listing).filter(pk=filter_id).first()
        if row is None:
            raise Http404("There is no filter of yours with this id; it may have been deleted.")
        row.delete()
        messages.success(request, f"The filter “{row.name}” is deleted.")
        return HttpResponseRedirect(self._url("changelist"))

    @property
    def _listing(self) -> str:
        return str(self.opts.model_name)

    def _url(self, page: str, *arguments: int) -> str:
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{page}", args=arguments)
