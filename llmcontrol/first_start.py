"""The rows of a first start: an administrator, an API key, a token, and one model that answers. Later starts add nothing.

The same services as in admin and REST write them, so nothing here knows more than an administrator could do by hand.
"""

from __future__ import annotations

import secrets

import msgspec
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import transaction

from access.models import ApiKey, PersonalToken, Team
from access.services import SCOPES, create_api_key, create_personal_token, revoke_api_key, revoke_personal_token
from models_registry.models import LLMModel, PromptTemplate
from models_registry.prompt_services import add_shipped_prompts
from models_registry.services import set_price, sync_models
from providers import local_model
from providers.models import Provider
from providers.services import create_provider, update_provider

USERNAME = "admin"
TEAM = "default"
CREDENTIAL = "quickstart"
ECHO_MODEL = "echo-1"


class Credentials(msgspec.Struct, frozen=True):
    """None = shown at an earlier start, and kept nowhere."""

    username: str
    password: str | None
    api_key: str | None
    admin_token: str | None


def ensure_credentials(*, reset: bool) -> Credentials:
    """Makes what is not there; with `reset`, replaces what is. Other users, keys and tokens are left alone."""
    with transaction.atomic():
        user, password = _administrator(reset)
        return Credentials(USERNAME, password, _api_key(reset), _admin_token(user, reset))


def ensure_local_model(port: int) -> str:
    """Its alias. The local model has to be answering. Raises GatewayError, ValidationError."""
    address = local_model.base_url(port)
    provider = Provider.objects.filter(name="local").first()
    if provider is None:
        return _register("local", "llamacpp", local_model.ALIAS, base_url=address)
    if provider.base_url != address:
        update_provider(provider, {"base_url": address}, secrets=[])
    return local_model.ALIAS


def ensure_prompts() -> None:
    """The shipped prompt templates, where there are none at all: one that was deleted stays away."""
    if not PromptTemplate.objects.exists():
        add_shipped_prompts()


def ensure_echo() -> str:
    """Its alias."""
    if not Provider.objects.filter(name="echo").exists():
        _register("echo", "echo", ECHO_MODEL)
    return ECHO_MODEL


def _administrator(reset: bool) -> tuple[User, str | None]:
    user = get_user_model().objects.filter(username=USERNAME).first()
    if user is not None and not reset:
        return user, None
    password = secrets.token_urlsafe(15)
    if user is None:
        return get_user_model().objects.create_superuser(USERNAME, password=password), password
    user.set_password(password)
    user.save(update_fields=["password"])
    return user, password


def _api_key(reset: bool) -> str | None:
    team, _ = Team.objects.get_or_create(name=TEAM)
    made = ApiKey.objects.filter(team=team, name=CREDENTIAL)
    if made.exists() and not reset:
        return None
    for key in made.filter(revoked_at=None):
        revoke_api_key(key)
    return create_api_key(name=CREDENTIAL, team=team, scopes=SCOPES)[1]


def _admin_token(user: User, reset: bool) -> str | None:
    made = PersonalToken.objects.filter(user=user, name=CREDENTIAL)
    if made.exists() and not reset:
        return None
    for token in made.filter(revoked_at=None):
        revoke_personal_token(token)
    return create_personal_token(user, CREDENTIAL)[1]


def _register(name: str, provider_type: str, alias: str, base_url: str = "") -> str:
    """A provider, the models it lists, and a price of nothing: without one its cost would be unknown, not zero."""
    with transaction.atomic():
        provider = create_provider(name=name, provider_type=provider_type, base_url=base_url)
        sync_models(provider, apply=True)
        for model in LLMModel.objects.filter(provider=provider):
            set_price(model, currency="USD", per_million={"input": "0", "output": "0"}, source="local")
    return alias
