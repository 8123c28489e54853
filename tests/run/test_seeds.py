"""Providers and a token from the environment, on an empty database and never again."""

from __future__ import annotations

import pytest

from access.models import ApiKey
from access.services import digest_of, revoke_api_key
from core.errors import ConfigurationError
from core.secrets import Secret
from llmcontrol import seeding, seeds
from llmcontrol.environment import Environment
from llmcontrol.seeds import Seed
from models_registry.models import LLMModel
from providers.models import Provider

TOKEN = Secret("our-own-token-of-thirty-characters")


def read(**environ: str) -> list[Seed]:
    return list(seeds.read(Environment(environ)))


def test_nothing_is_made_of_nothing() -> None:
    assert read() == []


def test_each_key_is_a_provider_and_the_preferred_one_comes_first() -> None:
    found = read(**dict.fromkeys(seeds.KEYS.values(), "sk-x"), AZURE_OPENAI_ENDPOINT="https://r.example", LLM_PROVIDER="Kimi")
    assert found[0].name == "moonshot"
    assert {seed.name for seed in found} == set(seeds.KEYS)
    assert [seed.first for seed in found] == [True] + [False] * (len(seeds.KEYS) - 1)


def test_what_the_variables_say_is_in_the_seed() -> None:
    (openai,) = read(OPENAI_API_KEY="sk-x", OPENAI_MODEL="gpt-4o", OPENAI_TIMEOUT="90", OPENAI_BASE_URL="https://proxy.example/v1")
    assert openai == Seed("openai", "openai", Secret("sk-x"), "https://proxy.example/v1", {"total_timeout_s": 90.0}, "gpt-4o")
    (local,) = read(LOCAL_MODEL_ENDPOINT="http://127.0.0.1:11434/v1", LOCAL_MODEL_NAME="qwen", LLM_PROVIDER="local")
    assert local == Seed("local", "openai_compatible", None, "http://127.0.0.1:11434/v1", model="qwen", first=True)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"LLM_PROVIDER": "acme"}, "LLM_PROVIDER"),
        ({"LLM_PROVIDER": "openai"}, "OPENAI_API_KEY"),
        ({"LLM_PROVIDER": "local"}, "LOCAL_MODEL_ENDPOINT"),
        ({"AZURE_OPENAI_API_KEY": "k"}, "AZURE_OPENAI_ENDPOINT"),
        ({"OPENAI_API_KEY": "sk-x", "OPENAI_TIMEOUT": "soon"}, "OPENAI_TIMEOUT"),
        ({"KIMI_API_KEY": "sk x"}, "KIMI_API_KEY"),
    ],
)
def test_what_cannot_work_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        read(**environ)


@pytest.mark.parametrize("token", ["short", "with a space in it, and long enough", "ünïcode-characters-in-here"])
def test_a_token_that_is_none_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigurationError, match="LLM_AUTH_TOKEN") as refused:
        seeds.auth_token(Environment({"LLM_AUTH_TOKEN": token}))
    assert token not in str(refused.value)


@pytest.mark.django_db
def test_rows_are_made_once_and_stay_what_an_administrator_makes_of_them() -> None:
    found = [Seed("openai", "openai", Secret("sk-planted-0001"), model="gpt-4o", first=True)]
    assert list(seeding.providers(found)) == ["Provider openai was made from the environment, with 1 models."]
    model = LLMModel.objects.get()
    assert (model.alias, model.priority, model.provider.name) == ("gpt-4o", 10, "openai")
    assert model.prices.exists()
    assert model.provider.keys.get().open().reveal() == "sk-planted-0001"
    Provider.objects.update(is_active=False)
    assert list(seeding.providers(found)) == []
    assert not Provider.objects.get().is_active


@pytest.mark.django_db
def test_a_seed_that_cannot_be_a_provider_is_said_and_the_others_are_made() -> None:
    found = [Seed("bad", "openai", Secret("sk-planted-0001"), base_url="ftp://x"), Seed("openai", "openai", Secret("sk-2"), model="m")]
    refused, made = seeding.providers(found)
    assert refused.startswith("The environment's provider bad was not made: ")
    assert made.startswith("Provider openai was made")
    assert Provider.objects.get().name == "openai"


@pytest.mark.django_db
def test_the_token_is_a_key_for_as_long_as_the_variable_says_so() -> None:
    assert list(seeding.auth_token(TOKEN)) == []
    key = ApiKey.objects.get()
    assert (bytes(key.digest), key.prefix, key.revoked_at) == (digest_of(TOKEN.reveal()), "our-", None)
    assert list(seeding.auth_token(TOKEN)) == []
    assert ApiKey.objects.count() == 1
    (said,) = seeding.auth_token(Secret("another-token-of-thirty-characters"))
    assert "is revoked" in said
    assert list(ApiKey.objects.filter(revoked_at=None).values_list("prefix", flat=True)) == ["anot"]
    assert len(list(seeding.auth_token(None))) == 1
    assert not ApiKey.objects.filter(revoked_at=None).exists()


@pytest.mark.django_db
def test_a_token_that_was_revoked_stays_so() -> None:
    list(seeding.auth_token(TOKEN))
    revoke_api_key(ApiKey.objects.get())
    (said,) = seeding.auth_token(TOKEN)
    assert "stays so" in said
    assert not ApiKey.objects.filter(revoked_at=None).exists()
