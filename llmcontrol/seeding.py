"""Rows from the environment: the first providers of an empty database, and the key that LLM_AUTH_TOKEN is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections, transaction

from access.models import ApiKey, Team
from access.services import SCOPES, create_api_key, digest_of, revoke_api_key
from core.errors import GatewayError
from core.secrets import Secret
from llmcontrol.seeds import Seed
from models_registry import price_file
from models_registry.models import LLMModel
from models_registry.services import sync_models
from models_registry.sync import add_models
from providers.models import Provider
from providers.services import create_provider

KEY_NAME = "LLM_AUTH_TOKEN"
TEAM = "default"
_PREFERRED = 10  # a model's priority is 100 where nobody says otherwise


def from_environment() -> Iterator[str]:
    """What it says, as rows; a sentence for each thing worth knowing. A database that cannot be used yet keeps nobody from starting."""
    try:
        yield from providers(settings.SEEDS)
        yield from auth_token(settings.AUTH_TOKEN)
    except DatabaseError as exc:
        if settings.SEEDS or settings.AUTH_TOKEN:
            yield f"Nothing was taken from the environment: the database is not usable yet ({type(exc).__name__}). Migrate, start again."
    finally:
        connections.close_all()


def providers(seeds: Iterable[Seed]) -> Iterator[str]:
    """Makes them where there is no provider at all; a sentence for each. What an administrator changes later stays changed."""
    if Provider.objects.exists():
        return
    for seed in seeds:
        try:
            with transaction.atomic():
                provider = create_provider(
                    name=seed.name,
                    provider_type=seed.provider_type,
                    base_url=seed.base_url,
                    secrets=[seed.secret.reveal()] if seed.secret else [],
                    **seed.columns,
                )
        except ValidationError as refused:
            yield f"The environment's provider {seed.name} was not made: {' '.join(refused.messages)}"
            continue
        yield _with_models(provider, seed)


def _with_models(provider: Provider, seed: Seed) -> str:
    """Those that the environment names, or the vendor lists, with the catalogue's prices where it knows them."""
    try:
        if seed.model:
            add_models(provider, [seed.model])
            price_file.from_catalogue(provider.name, dry_run=False)
        else:
            sync_models(provider, apply=True, accept=True)
    except (GatewayError, ValidationError) as refused:
        reason = refused.message if isinstance(refused, GatewayError) else " ".join(refused.messages)
        return f"Provider {provider.name} was made from the environment; its models were not listed ({reason}): sync them in the admin."
    if seed.first:
        LLMModel.objects.filter(provider=provider).update(priority=_PREFERRED)
    return f"Provider {provider.name} was made from the environment, with {provider.models.count()} models."


def auth_token(token: Secret | None) -> Iterator[str]:
    """The environment's token is an API key with every scope, of the team `default`, for as long as the variable says so: without
    it, or with another token, it is revoked. A revoked token stays revoked, also where an administrator has done it."""
    digest = digest_of(token.reveal()) if token else None
    with transaction.atomic():
        for key in ApiKey.objects.filter(name=KEY_NAME, team__name=TEAM, revoked_at=None).exclude(digest=digest):
            revoke_api_key(key)
            yield f"The key {key} of an earlier {KEY_NAME} is revoked."
        if token is None:
            return
        known = ApiKey.objects.filter(digest=digest).first()
        if known is None:
            team, _ = Team.objects.get_or_create(name=TEAM)
            create_api_key(name=KEY_NAME, team=team, scopes=SCOPES, token=token)
        elif known.revoked_at is not None:
            yield f"{KEY_NAME} is a key that was revoked, and stays so: choose another token."
