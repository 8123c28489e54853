"""Who reads in which language: only the admin's pages are translated, and all else is English whatever a browser asks for."""

from __future__ import annotations

from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.decorators import sync_and_async_middleware

PREFIX = "/admin/"


def language_of(request: HttpRequest) -> str:
    """As the person chose, kept in a cookie; otherwise as the browser asks."""
    return translation.get_language_from_request(request) if request.path_info.startswith(PREFIX) else settings.LANGUAGE_CODE


@sync_and_async_middleware
def in_their_language(get_response: Any) -> Any:
    """A language for the time of one request, so that none is left over for the next one on this thread."""

    def named(request: HttpRequest, response: HttpResponseBase, language: str) -> HttpResponseBase:
        if request.path_info.startswith(PREFIX):
            patch_vary_headers(response, ("Accept-Language", "Cookie"))
            response.headers.setdefault("Content-Language", language)
        return response

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            with translation.override(language := language_of(request)):
                return named(request, await get_response(request), language)

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        with translation.override(language := language_of(request)):
            return named(request, get_response(request), language)

    return synchronous
