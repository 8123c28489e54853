"""`Authorization: Token <personal token>`: how scripts reach the control plane."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from access.models import PersonalToken
from access.services import digest_of

_SCHEME = b"token"
_MAX_CHARACTERS = 200


class PersonalTokenAuthentication(BaseAuthentication):
    """One look-up by digest. Says why a token is refused only to those who hold it."""

    def authenticate(self, request: Request) -> tuple[Any, PersonalToken] | None:
        scheme, _, credential = get_authorization_header(request).partition(b" ")
        if scheme.lower() != _SCHEME:
            return None
        return self._checked(credential.strip())

    def authenticate_header(self, request: Request) -> str:
        return 'Token realm="llmcontrol"'

    def _checked(self, credential: bytes) -> tuple[Any, PersonalToken]:
        token = None
        if 0 < len(credential) <= _MAX_CHARACTERS and credential.isascii():
            token = PersonalToken.objects.select_related("user").filter(digest=digest_of(credential.decode())).first()
        if token is None:
            raise AuthenticationFailed("This personal token is not known.")
        if token.revoked_at is not None:
            raise AuthenticationFailed("This personal token was revoked.")
        if token.expires_at is not None and token.expires_at <= timezone.now():
            raise AuthenticationFailed("This personal token has expired.")
        if not token.user.is_active:
            raise AuthenticationFailed("The user of this personal token is switched off.")
        return token.user, token


class PersonalTokenScheme(OpenApiAuthenticationExtension):
    """How the schema describes it."""

    target_class = PersonalTokenAuthentication
    name = "personalToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Token <personal token>"}
