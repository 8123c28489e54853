"""What every answer of the control plane passes through: a content security policy, and static files that suit ASGI."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from whitenoise.middleware import WhiteNoiseMiddleware

_POLICY = (
    "default-src 'self'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
)
STRICT = _POLICY.format(scripts="")
# The admin theme's Alpine evaluates expressions that stand in attributes; inline scripts stay forbidden there too.
ADMIN = _POLICY.format(scripts=" 'unsafe-eval'")


def policy_for(path: str) -> str:
    return ADMIN if path.startswith("/admin/") else STRICT


Handler = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


@sync_and_async_middleware
def content_security_policy(get_response: Any) -> Handler:
    """Sets Content-Security-Policy wherever the view has not set one itself."""

    def restrict(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", policy_for(request.path_info))
        return response

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return restrict(request, await get_response(request))

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return restrict(request, get_response(request))

    return synchronous


class StaticFiles(WhiteNoiseMiddleware):
    """WhiteNoise answers with an open file that is read bit by bit. Under ASGI that costs a thread and a warning for each
    file; ours are small (the largest 2 MB), so they are read whole."""

    def add_files(self, root: str | os.PathLike[str], prefix: str | None = None) -> None:
        """Without a collected STATIC_ROOT the files are served from where the packages keep them; that needs no warning."""
        if os.path.isdir(root):
            super().add_files(root, prefix)

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        answer = static_file.get_response(request.method, request.META)
        if answer.file is None:
            body = b""
        else:
            with answer.file as file:
                body = file.read()
        response = HttpResponse(body, status=int(answer.status))
        del response["Content-Type"]
        for name, value in answer.headers:
            response[name] = value
        return response
