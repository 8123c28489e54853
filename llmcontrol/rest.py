"""What every REST view shares: who may do what, how lists are paged, how bodies are parsed. Named in settings, imported nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import QuerySet
from rest_framework.exceptions import APIException, ErrorDetail, ParseError, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

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

    Whatever is not declared is a mistake in the view, and is refused loudly rather than let through.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        user = request.user
        if not user or not user.is_authenticated:
            return False
        action = getattr(view, "action", None) if hasattr(view, "action_map") else (request.method or "").lower()
        if action in (None, "metadata", "options"):
            return True  # no handler for this method, so 405 follows; or a question about the route itself
        return bool(user.has_perms(self.needed(view, action)))

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
