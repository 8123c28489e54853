"""The admin site. Every page registered with it shows and changes the rows that `access.scope` allows, whichever package it is from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.admin import FieldListFilter, RelatedFieldListFilter, SimpleListFilter
from django.core.exceptions import FieldDoesNotExist
from django.db.models import ForeignKey, Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import Promise
from unfold.admin import ModelAdmin
from unfold.sites import UnfoldAdminSite

from access import scope
from access.models import Team

if TYPE_CHECKING:
    from unfold.admin import ModelAdmin as _AdminBase
else:
    _AdminBase = ModelAdmin


class SeenOnly(RelatedFieldListFilter):
    """Offers what the person may see of the other model, and no more."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[Any]:
        seen = scope.visible(request.user, field.remote_field.model._default_manager.all())
        return [(row.pk, str(row)) for row in seen]


class Scoped(_AdminBase):
    """Stands below each registered class, where every `super()` ends: what the classes refuse or add on top stays theirs."""

    list_per_page = 50
    # What the page of a list that has no rows says: what such rows are for, and how the first comes to be.
    when_empty: str | Promise = ""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """What may be changed or deleted is shown, too."""
        rows = super().get_queryset(request)
        if any(request.user.has_perm(self._permission(verb)) for verb in ("view", "change", "delete")):
            return rows
        return scope.visible(request.user, rows)

    def seen(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Of another model's rows, for pages that show them beside their own."""
        return scope.visible(request.user, rows)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return any(scope.allows(request.user, self._permission(verb)) for verb in ("view", "add", "change", "delete"))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return any(self._may(request, verb, obj) for verb in ("view", "change"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return scope.allows(request.user, self._permission("add"))

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._may(request, "delete", obj)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Through a team, a row is added only to teams where one may, and beside other rows only to those that one sees."""
        add = self._permission("add")
        if not request.user.has_perm(add) and "queryset" not in kwargs:
            other = db_field.remote_field.model
            kwargs["queryset"] = scope.visible(request.user, other._default_manager.all(), add if other is Team else None)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return [(item, SeenOnly) if self._is_foreign(item) else item for item in super().get_list_filter(request)]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Of columns, only what is offered as a filter: Django would take each of them, with every comparison, from the address."""
        column = lookup.partition("__")[0]
        if column != "pk" and not self._is_column(column):
            return True  # a filter's own word, or nothing
        offered = self.get_list_filter(request) if request else []
        return lookup in _own_words(offered) or (column in _columns(offered) and lookup in self._words(column))

    def _words(self, column: str) -> set[str]:
        """What Django's filters on a column write into the address."""
        field = self.model._meta.get_field(column)
        exact = f"{column}__{field.target_field.name}__exact" if field.is_relation else f"{column}__exact"
        return {column, exact, f"{column}__isnull", f"{column}__isempty"}

    def _may(self, request: HttpRequest, verb: str, obj: Any) -> bool:
        """The theme asks of rows by their id."""
        if isinstance(obj, str):
            obj = self.get_object(request, obj)  # None = not to be seen, if it is there at all: the page itself says 404
        return scope.allows(request.user, self._permission(verb), obj)

    def _permission(self, verb: str) -> str:
        return f"{self.opts.app_label}.{verb}_{self.opts.model_name}"

    def _is_foreign(self, item: Any) -> bool:
        return isinstance(item, str) and self._is_column(item) and isinstance(self.model._meta.get_field(item), ForeignKey)

    def _is_column(self, name: str) -> bool:
        try:
            self.model._meta.get_field(name)
        except FieldDoesNotExist:
            return False
        return True


def _own_words(filters: Iterable[Any]) -> set[str]:
    """Of filters with a word of their own, which may be a column's name: what follows it is a value, and no comparison."""
    return {item.parameter_name or "" for item in filters if isinstance(item, type) and issubclass(item, SimpleListFilter)}


def _columns(filters: Iterable[Any]) -> Iterable[str]:
    for item in filters:
        if isinstance(item, str):
            yield item
        elif isinstance(item, tuple) and isinstance(item[1], type) and issubclass(item[1], FieldListFilter):
            yield item[0]


class Site(UnfoldAdminSite):
    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """The class as it is registered, over `Scoped`."""
        base = admin_class or ModelAdmin
        scoped = base if issubclass(base, Scoped) else type(base.__name__, (base, Scoped), {"__module__": base.__module__})
        super().register(model_or_iterable, scoped, **options)

    def shows(self, request: HttpRequest, app: str, name: str) -> bool:
        """Whether the menu is to offer this model's list."""
        return any(scope.allows(request.user, f"{app}.{verb}_{name}") for verb in ("view", "change"))
