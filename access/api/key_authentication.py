"""`Authorization: Bearer <API key>` on the control plane's few routes that programs use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from access import bounds
from access.models import ApiKey
from access.services import digest_of
from core.addresses import client_address, is_within, read_networks

_SCHEME = b"bearer"
_MAX_CHARACTERS = 200
_SCOPES = {"monitoring": "usage"}


class Program:
    """Stands for a person in views: what it may do are its key's scopes, as far as its team has them."""

    is_authenticated = is_active = True
    is_anonymous = is_staff = is_superuser = False
    pk = None

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self._scopes = bounds.scopes_within(key.scopes, key.team.scopes)

    def has_perms(self, permissions: Iterable[str], obj: Any = None) -> bool:
        """A scope opens the app of its name, `usage` what happened; for the views that take keys at all."""
        apps = (permission.partition(".")[0] for permission in permissions)
        return all(_SCOPES.get(app, app) in self._scopes for app in apps)

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        return self.has_perms([permission])

    def get_username(self) -> str:
        """For the audit trail: which key it was."""
        return f"key {self.key}"

    def __str__(self) -> str:
        return str(self.key)


class ApiKeyAuthentication(BaseAuthentication):
    """Only where a view names it: what a key may do elsewhere is the data plane's business."""

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        scheme, _, credential = get_authorization_header(request).partition(b" ")
        if scheme.lower() != _SCHEME:
            return None
        return self._checked(credential.strip(), request.META)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="llmcontrol"'

    def _checked(self, credential: bytes, meta: Mapping[str, Any]) -> tuple[Any, ApiKey]:
        key = None
        if 0 < len(credential) <= _MAX_CHARACTERS and credential.isascii():
            rows = ApiKey.objects.select_related("team").filter(revoked_at=None, team__is_active=True)
            key = rows.filter(digest=digest_of(credential.decode())).first()
        if key is None or _has_ended(key) or not _may_come_from(key, meta):
            raise AuthenticationFailed("The API key is unknown, expired or revoked.")
        return Program(key), key


def _has_ended(key: ApiKey) -> bool:
    end = bounds.end_of(key.expires_at, key.created_at, key.team.max_key_days)
    return end is not None and end <= timezone.now()


def _may_come_from(key: ApiKey, meta: Mapping[str, Any]) -> bool:
    if not key.source_networks:
        return True
    address = client_address(str(meta.get("REMOTE_ADDR") or ""), str(meta.get("HTTP_X_FORWARDED_FOR") or ""), settings.TRUSTED_PROXIES)
    return is_within(address, read_networks(key.source_networks))


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """How the schema describes it."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
