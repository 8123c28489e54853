"""What every answer of the control plane passes through: a content security policy, who acts for the audit trail, and static files that
suit ASGI."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django_prometheus.middleware import PrometheusAfterMiddleware
from whitenoise.middleware import WhiteNoiseMiddleware

from core.addresses import client_address
from monitoring import audit_context, audit_people
from monitoring.audit_context import Actor
from monitoring.models import AuditEvent

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
    """Sets Content-Security-Policy wherever the view has not set one itself; and what no view says may be kept, nobody keeps."""

    def restrict(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", policy_for(request.path_info))
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return restrict(request, await get_response(request))

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return restrict(request, get_response(request))

    return synchronous


class Metrics(PrometheusAfterMiddleware):
    """A method is any word that a client likes: in a label, what is none of HTTP's stands for all of its kind."""

    def label_metric(self, metric: Any, request: HttpRequest, response: HttpResponseBase | None = None, **labels: Any) -> Any:
        if "method" in labels:
            labels["method"] = self._method(request)
        return super().label_metric(metric, request, response=response, **labels)


@sync_and_async_middleware
def audited(get_response: Any) -> Handler:
    """Tells the audit trail who acts during a request, and gives it what was refused; the answer has the request's id."""

    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            with audit_context.acting(request_actor(request)):
                response = await get_response(request)
                if response.status_code in _REFUSED:
                    await sync_to_async(_record_refusal)(request, response)
            return _with_id(request, response)

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        with audit_context.acting(request_actor(request)):
            response = get_response(request)
            if response.status_code in _REFUSED:
                _record_refusal(request, response)
        return _with_id(request, response)

    return synchronous


_REFUSED = (401, 403)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_actor(request: HttpRequest) -> Callable[[], Actor]:
    """Asked when something is recorded: by then REST has read the token, or the session its user."""
    given = request.headers.get("x-request-id", "")
    request.audit_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex  # type: ignore[attr-defined]

    def actor() -> Actor:
        user: Any = getattr(request, "user", None)
        known = user is not None and user.is_authenticated
        return Actor(
            source="admin" if request.path_info.startswith("/admin/") else "api",
            name=user.get_username() if known else "",
            user_id=str(user.pk or "") if known else "",
            address=address_of(request),
            request_id=request.audit_id,  # type: ignore[attr-defined]
        )

    return actor


def address_of(request: HttpRequest) -> str:
    """The client's; where the other end is a trusted proxy, what that says of it."""
    peer, forwarded = str(request.META.get("REMOTE_ADDR") or ""), request.headers.get("x-forwarded-for", "")
    return client_address(peer, forwarded, settings.TRUSTED_PROXIES)


def _record_refusal(request: HttpRequest, response: HttpResponseBase) -> None:
    """403, and 401 to whoever showed a token: who shows nothing is no more than told to log in."""
    action = AuditEvent.Action.REFUSED
    if response.status_code == 401:
        if "Authorization" not in request.headers:
            return
        action = AuditEvent.Action.LOGIN_FAILED
    audit_people.record_refusal(action, f"{request.method} {request.path_info}", response.status_code)


def _with_id(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    response.headers.setdefault("x-request-id", request.audit_id)  # type: ignore[attr-defined]
    return response


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
