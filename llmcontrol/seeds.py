"""The first providers, from environment variables that many programs share, such as OPENAI_API_KEY. Here they are only read; `seeding`
makes rows of them, once, on an empty database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from core.errors import ConfigurationError
from core.secrets import Secret
from llmcontrol.environment import Environment

# What LLM_PROVIDER may say → the provider that is meant.
_WORDS = {"google": "gemini", "kimi": "moonshot", "qwen": "dashscope", "claude": "anthropic", "azure_openai": "azure"}
KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "dashscope": "DASHSCOPE_API_KEY",
    "gemini": "GOOGLE_API_KEY",
    "moonshot": "KIMI_API_KEY",
}
LOCAL = "local"
_MIN_TOKEN = 24


class Seed(msgspec.Struct, frozen=True):
    """One provider to be. `model` "" = those that the vendor lists. `first`: its models come before those of the others."""

    name: str
    provider_type: str
    secret: Secret | None = None
    base_url: str = ""
    columns: Mapping[str, Any] = {}
    model: str = ""
    first: bool = False


def read(env: Environment) -> tuple[Seed, ...]:
    """Those that the environment describes, the preferred one first. Raises ConfigurationError that names the variable."""
    said = env.text("LLM_PROVIDER").strip().lower()
    preferred = _WORDS.get(said, said)
    if preferred and preferred not in (*KEYS, LOCAL):
        raise ConfigurationError(f"LLM_PROVIDER={said!r}: write one of {', '.join((*KEYS, LOCAL))}")
    found = {seed.name: seed for seed in _described(env)}
    if preferred and preferred not in found:
        needed = "LOCAL_MODEL_ENDPOINT" if preferred == LOCAL else KEYS[preferred]
        raise ConfigurationError(f"LLM_PROVIDER={said!r}, but {needed} is not set: set it too")
    if preferred:
        found[preferred] = msgspec.structs.replace(found[preferred], first=True)
    return tuple(sorted(found.values(), key=lambda seed: not seed.first))


def _described(env: Environment) -> Iterator[Seed]:
    for name, variable in KEYS.items():
        if key := env.text(variable):
            if not key.isprintable() or " " in key:
                raise ConfigurationError(f"{variable} holds a space or a character that no key has: write the key alone")
            yield _of_vendor(env, name, Secret(key))
    if endpoint := env.text("LOCAL_MODEL_ENDPOINT"):
        yield Seed(LOCAL, "openai_compatible", base_url=endpoint, model=env.text("LOCAL_MODEL_NAME"))


def _of_vendor(env: Environment, name: str, key: Secret) -> Seed:
    if name == "openai":
        timeout_s = env.number("OPENAI_TIMEOUT", 0, 0, 86_400)
        columns = {"total_timeout_s": timeout_s} if timeout_s else {}
        return Seed(name, name, key, base_url=env.text("OPENAI_BASE_URL"), columns=columns, model=env.text("OPENAI_MODEL"))
    if name == "azure":
        endpoint = env.required("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY is, and a resource has an address of its own")
        return Seed(name, name, key, base_url=endpoint, model=env.text("AZURE_OPENAI_DEPLOYMENT"))
    return Seed(name, name, key)


def auth_token(env: Environment) -> Secret | None:
    """What LLM_AUTH_TOKEN says; None = nothing. Raises ConfigurationError, without the token in it."""
    token = env.text("LLM_AUTH_TOKEN")
    if token and (len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigurationError(f"LLM_AUTH_TOKEN: write at least {_MIN_TOKEN} printable ASCII characters without spaces")
    return Secret(token) if token else None
