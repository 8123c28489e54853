"""What every REST view shares: who may do what, how lists are paged, how bodies are parsed. Named in settings, imported nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import QuerySet
from rest_framework.exceptions import APIException, ErrorDetail, ParseError, ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from access import scope

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
MAX_BODY_BYTES = 2**20

_VERBS = {
    "list": "view",
    "retrieve": "view",
    "create": "add",
    "update": "change",
    "partial_update": "change",
    "destroy": "delete",
}


class DeclaredPermissions(BasePermission):
    """The model's own permission for the usual actions; a view declares those of others in
    `permission_for = {"action or method": "app.codename" or a tuple of them; () = anybody who is logged in}`.

    Whatever is not declared is a mistake in the view, and is refused loudly rather than let through. A role in a team opens only
    views whose rows `TeamRows` narrows.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        user = request.user
        if not user or not user.is_authenticated:
            return False
        action = asked_of(view, request)
        if action is None:
            return True
        needed = self.needed(view, action)
        if user.has_perms(needed):
            return True
        narrowed = TeamRows in getattr(view, "filter_backends", ())
        return narrowed and all(scope.allows(user, permission) for permission in needed)

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        action = asked_of(view, request)
        return action is None or all(scope.allows(request.user, permission, obj) for permission in self.needed(view, action))

    @staticmethod
    def needed(view: Any, action: str) -> tuple[str, ...]:
        declared: Mapping[str, str | tuple[str, ...]] = getattr(view, "permission_for", {})
        if action in declared:
            needed = declared[action]
            return (needed,) if isinstance(needed, str) else needed
        queryset: QuerySet[Any] | None = getattr(view, "queryset", None)
        if action in _VERBS and queryset is not None:
            meta = queryset.model._meta
            return (f"{meta.app_label}.{_VERBS[action]}_{meta.model_name}",)
        raise ImproperlyConfigured(f"{type(view).__name__} does not say in permission_for who may {action}")


def asked_of(view: Any, request: Request) -> str | None:
    """The action, or for plain views the method. None: no handler for this method, so 405 follows; or a question about the route."""
    if hasattr(view, "action_map"):
        action = getattr(view, "action", None)
    else:
        method = (request.method or "").lower()
        action = "get" if method == "head" else method if hasattr(view, method) else None
    return None if action in (None, "metadata", "options") else action


class TeamRows(BaseFilterBackend):
    """All rows for those who have the permission over everything; else those that they may see through their teams.
    What somebody may not see is answered as what is not there."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        action = asked_of(view, request)
        if action is not None and request.user.has_perms(DeclaredPermissions.needed(view, action)):
            return queryset
        return scope.visible(request.user, queryset)


class KeysetPagination(CursorPagination):
    """Pages by the value at the edge: no COUNT, no deep OFFSET, and rows that arrive meanwhile shift nothing.

    A view names the column in `keyset`: indexed and nearly unique.
    """

    page_size = DEFAULT_PAGE_SIZE
    page_size_query_param = "page_size"
    max_page_size = MAX_PAGE_SIZE
    page_size_query_description = f"Rows in a page, 1 to {MAX_PAGE_SIZE}."

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        return (view.keyset,)

    def get_page_size(self, request: Request) -> int:
        text = request.query_params.get("page_size", str(DEFAULT_PAGE_SIZE))
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= MAX_PAGE_SIZE):
            raise _invalid("page_size", f"Write a whole number from 1 to {MAX_PAGE_SIZE}.")
        return int(text)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, OverflowError, FieldError, DjangoValidationError):
            # A cursor is only text in an address: somebody else's, or one that was edited, compares to nothing.
            raise self._stale() from None

    def decode_cursor(self, request: Request) -> Any:
        try:
            return super().decode_cursor(request)
        except APIException:
            raise self._stale() from None

    @staticmethod
    def _stale() -> ValidationError:
        return _invalid("cursor", "This cursor is not one of this list; start without it.")


class StrictJSONParser(BaseParser):
    """JSON of bounded size and depth, without what Python takes for JSON and databases do not: NaN, lone surrogates, NUL."""

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge()
        if b"\\u0000" in body:
            raise ParseError("The body holds a NUL character (\\u0000), which cannot be stored.")
        try:
            return msgspec.json.decode(body)
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ParseError(f"The body is not valid JSON: {error}") from None


class BodyTooLarge(APIException):
    status_code = 413
    default_code = "request_too_large"
    default_detail = f"The body is longer than {MAX_BODY_BYTES} bytes."


def _invalid(parameter: str, text: str) -> ValidationError:
    return ValidationError({parameter: [ErrorDetail(text, code="invalid")]})
