"""Every kind of vendor. Those with a wire of their own are files, those without are rows; nobody else asks `if kind ==`.

A file is imported when its vendor is first used.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import msgspec

from core.config import ProviderSpec
from core.errors import ConfigurationError
from providers.adapters.base import Adapter, FormField

COMPATIBLE = "providers.adapters.openai_compatible:OpenAICompatible"
CUSTOM = "custom"
_METHODS = ("chat_call", "read_answer", "stream_reader", "read_error", "models_call", "read_models", "send")


class Vendor(msgspec.Struct, frozen=True):
    """`base_url` is the vendor's own address, used where the admin gives none; "" = the admin must give one."""

    label: str
    path: str
    base_url: str = ""
    key_required: bool = False


ADAPTERS: dict[str, Vendor] = {
    "openai": Vendor("OpenAI", "providers.adapters.openai:OpenAI", "https://api.openai.com/v1", key_required=True),
    "echo": Vendor("Echo (in this process, for tests)", "providers.adapters.echo:Echo", "http://echo.invalid/v1"),
}
COMPATIBLE_VENDORS: dict[str, Vendor] = {
    "openai_compatible": Vendor("Any OpenAI-compatible server", COMPATIBLE),
    "vllm": Vendor("vLLM", COMPATIBLE, "http://127.0.0.1:8000/v1"),
    "llamacpp": Vendor("llama.cpp server", COMPATIBLE, "http://127.0.0.1:8080/v1"),
    "ollama": Vendor("Ollama", COMPATIBLE, "http://127.0.0.1:11434/v1"),
    "localai": Vendor("LocalAI", COMPATIBLE, "http://127.0.0.1:8080/v1"),
}
_VENDORS = {**ADAPTERS, **COMPATIBLE_VENDORS}
_CUSTOM_FIELD = FormField("adapter", "Adapter", "Where its class lives, e.g. our_adapters.acme:Acme.", required=True)


def kinds() -> list[tuple[str, str]]:
    """(kind, label), as a form offers them."""
    return [*((kind, vendor.label) for kind, vendor in _VENDORS.items()), (CUSTOM, "Custom adapter")]


def form(kind: str) -> tuple[FormField, ...]:
    """The fields an admin fills in for this kind. Raises ConfigurationError for an unknown kind."""
    if kind == CUSTOM:
        return (_CUSTOM_FIELD, FormField("api_key", "API key", secret=True))
    vendor = _vendor(kind)
    fields: tuple[FormField, ...] = _load(vendor.path).form
    return tuple(msgspec.structs.replace(field, required=vendor.key_required) if field.secret else field for field in fields)


def default_base_url(kind: str) -> str:
    """The vendor's own address, "" where only the admin can know it. Raises ConfigurationError for an unknown kind."""
    return "" if kind == CUSTOM else _vendor(kind).base_url


def adapter_for(spec: ProviderSpec) -> Adapter:
    """The adapter of a provider. Raises ConfigurationError naming the provider and what to correct."""
    try:
        path = str(spec.options.get("adapter") or "") if spec.kind == CUSTOM else _vendor(spec.kind).path
        base_url = spec.base_url or default_base_url(spec.kind)
        if not base_url:
            raise ConfigurationError("it needs a base URL")
        adapter: Adapter = _load(path)(msgspec.structs.replace(spec, base_url=base_url))
    except ConfigurationError as exc:
        raise ConfigurationError(f"provider {spec.name!r} of type {spec.kind!r}: {exc}") from None
    return adapter


def _vendor(kind: str) -> Vendor:
    try:
        return _VENDORS[kind]
    except KeyError:
        raise ConfigurationError(f"{kind!r} is no provider type; choose one of {', '.join(kind for kind, _ in kinds())}") from None


@cache
def _load(path: str) -> Any:
    """The adapter class at `package.module:Class`."""
    module_name, _, class_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ConfigurationError(f"adapter {path!r} cannot be imported ({type(exc).__name__}); write package.module:Class") from None
    missing = [name for name in _METHODS if not callable(getattr(found, name, None))]
    if not isinstance(found, type) or missing:
        raise ConfigurationError(f"adapter {path!r} is no adapter class; it lacks {', '.join(missing) or 'a class'}")
    return found
