"""Configuration rows for these tests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from access.models import ApiKey, Team
from models_registry.models import LLMModel, Price, PromptTemplate
from models_registry.prompt_services import Wording, save_prompt
from providers.models import Provider, ProviderKey


def a_provider(name: str = "openai-main", base_url: str = "https://vendor.example/v1", **fields: object) -> Provider:
    return Provider.objects.create(name=name, provider_type="openai_compatible", base_url=base_url, **fields)


def a_provider_key(provider: Provider, plaintext: str = "sk-vendor-secret-0001", **fields: object) -> ProviderKey:
    key = ProviderKey(provider=provider, **fields)
    key.seal(plaintext)
    key.save()
    return key


def a_model(provider: Provider, alias: str = "gpt-4o", **fields: object) -> LLMModel:
    return LLMModel.objects.create(provider=provider, alias=alias, **({"model_id": f"{alias}-2024"} | fields))


def a_price(model: LLMModel, valid_from: datetime, **fields: object) -> Price:
    amounts = {"input_micros": 2_500_000, "cached_input_micros": 1_250_000, "cache_write_micros": 0, "output_micros": 10_000_000}
    return Price.objects.create(model=model, valid_from=valid_from, **(amounts | fields))


def a_team(name: str = "growth", **fields: object) -> Team:
    return Team.objects.create(name=name, **fields)


def an_api_key(team: Team, name: str = "backend", **fields: object) -> ApiKey:
    digest = hashlib.sha256(name.encode()).digest()
    return ApiKey.objects.create(team=team, name=name, **({"digest": digest, "prefix": "sk-llmc-abcd", "scopes": ["chat"]} | fields))


def utc(year: int, month: int = 1, day: int = 1) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def a_prompt(name: str = "greeting", text: str = "Greet {{who}}.", **fields: object) -> PromptTemplate:
    template = PromptTemplate(name=name, **fields)
    save_prompt(template, Wording([{"role": "user", "content": text}], [{"name": "who"}]))
    return template
