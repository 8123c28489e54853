"""Every kind of vendor. Those with a wire of their own are files, those without are rows; nobody else asks `if kind ==`.

A file is imported when its vendor is first used. Facts: each vendor's API reference, as of 2026.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import msgspec

from core.config import ProviderSpec
from core.errors import ConfigurationError
from providers.adapters.base import Adapter, FormField
from providers.adapters.quirks import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Quirks

COMPATIBLE = "providers.adapters.openai_compatible:OpenAICompatible"
CUSTOM = "custom"
_METHODS = ("chat_call", "read_answer", "stream_reader", "read_error", "models_call", "read_models", "send")


class Vendor(msgspec.Struct, frozen=True):
    """`base_url` is the vendor's own address, used where the admin gives none; "" = the admin must give one.

    `form` () = the form that the class at `path` declares. `quirks` go to that class as its second argument, None = it takes none.
    """

    label: str
    path: str = COMPATIBLE
    base_url: str = ""
    form: tuple[FormField, ...] = ()
    quirks: Quirks | None = None


def api_key(help_text: str) -> FormField:
    """The key of a vendor that answers nobody without one."""
    return FormField("api_key", "API key", help_text, required=True, secret=True)


def address(help_text: str) -> FormField:
    return FormField("base_url", "Address", help_text)


_OLD_LIMIT = (("max_completion_tokens", "max_tokens"),)

ADAPTERS: dict[str, Vendor] = {
    "azure": Vendor("Azure OpenAI", "providers.adapters.azure:Azure"),
    "anthropic": Vendor("Anthropic", "providers.adapters.anthropic:Anthropic", "https://api.anthropic.com"),
    "dashscope": Vendor("DashScope (Qwen)", "providers.adapters.dashscope:DashScope", "https://dashscope.aliyuncs.com"),
    "gemini": Vendor("Google Gemini", "providers.adapters.gemini:Gemini", "https://generativelanguage.googleapis.com"),
    "echo": Vendor(
        "Echo (in this process, for tests)",
        "providers.adapters.echo:Echo",
        "http://echo.invalid/v1",
        quirks=Quirks(key_header="", endpoints=frozenset({CHAT})),
    ),
}
COMPATIBLE_VENDORS: dict[str, Vendor] = {
    "openai": Vendor(
        "OpenAI",
        base_url="https://api.openai.com/v1",
        form=(
            api_key("Starts with sk-."),
            FormField("organization", "Organization", "Starts with org-. Only for keys that belong to several organizations."),
            FormField("project", "Project", "Starts with proj_. Only for keys that reach several projects."),
        ),
        quirks=Quirks(
            option_headers=(("organization", "OpenAI-Organization"), ("project", "OpenAI-Project")),
            endpoints=frozenset({CHAT, EMBEDDINGS, COMPLETIONS, RESPONSES}),
            max_tokens_field="max_completion_tokens",
            developer_role=True,
            strict_messages=True,
        ),
    ),
    "openai_compatible": Vendor("Any OpenAI-compatible server", quirks=Quirks()),
    "vllm": Vendor(
        "vLLM",
        base_url="http://127.0.0.1:8000/v1",
        quirks=Quirks(endpoints=frozenset({CHAT, EMBEDDINGS, COMPLETIONS, RESPONSES}), extensions=frozenset({"top_k"})),
    ),
    "llamacpp": Vendor(
        "llama.cpp server",
        base_url="http://127.0.0.1:8080/v1",
        quirks=Quirks(renames=_OLD_LIMIT, extensions=frozenset({"top_k"})),  # servers built before 2026-02-23 know max_tokens alone
    ),
    "ollama": Vendor(
        "Ollama",
        base_url="http://127.0.0.1:11434/v1",
        quirks=Quirks(renames=_OLD_LIMIT),  # 0.32 takes max_completion_tokens and ignores it
    ),
    "localai": Vendor("LocalAI", base_url="http://127.0.0.1:8080/v1", quirks=Quirks(renames=_OLD_LIMIT, extensions=frozenset({"top_k"}))),
    "deepseek": Vendor(
        "DeepSeek",
        base_url="https://api.deepseek.com",
        form=(api_key("From platform.deepseek.com. Starts with sk-."),),
        # https://api-docs.deepseek.com/guides/thinking_mode (read 2026-11-22): `thinking` with `type` enabled or disabled.
        quirks=Quirks(endpoints=frozenset({CHAT}), renames=_OLD_LIMIT, extensions=frozenset({"thinking"})),
    ),
    "moonshot": Vendor(
        "Moonshot (Kimi)",
        base_url="https://api.moonshot.cn/v1",
        form=(
            api_key(
                "From platform.moonshot.cn for the address ending in .cn, from platform.moonshot.ai for .ai: neither works at the other."
            ),
            address("China: leave it empty. Elsewhere: https://api.moonshot.ai/v1, which has its own keys and its own balance."),
        ),
        quirks=Quirks(endpoints=frozenset({CHAT}), max_tokens_field="max_completion_tokens", extensions=frozenset({"thinking"})),
    ),
    "ark": Vendor(
        "Volcengine Ark (Doubao)",
        base_url="https://ark.cn-beijing.volces.com/api/v3",
        form=(
            api_key("An Ark API key; access and secret keys of a Volcengine account do not work here."),
            address(
                "Empty: pay by use, in Beijing. A coding plan has its own: https://ark.cn-beijing.volces.com/api/coding/v3. "
                "As model id, write a model's id or that of your own inference endpoint, which starts with ep-."
            ),
        ),
        quirks=Quirks(endpoints=frozenset({CHAT, EMBEDDINGS, RESPONSES}), extensions=frozenset({"thinking"})),
    ),
    "qianfan": Vendor(
        "Baidu Qianfan",
        base_url="https://qianfan.baidubce.com/v2",
        form=(
            api_key("Starts with bce-v3/ALTAK-. Access and secret keys of the older v1 API do not work here."),
            FormField("appid", "Application id", "Starts with app-. Only where usage is to be counted for one application."),
        ),
        quirks=Quirks(
            option_headers=(("appid", "appid"),), endpoints=frozenset({CHAT, EMBEDDINGS}), extensions=frozenset({"enable_thinking"})
        ),
    ),
    "dashscope_compatible": Vendor(
        "DashScope (Qwen), OpenAI-compatible",
        base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
        form=(
            api_key("From Model Studio, of the same region as the address: keys of one region are unknown in another."),
            address("China: leave it empty. Singapore: https://dashscope-intl.aliyuncs.com/compatible-mode/v1."),
        ),
        quirks=Quirks(
            endpoints=frozenset({CHAT, EMBEDDINGS, COMPLETIONS}),
            renames=_OLD_LIMIT,
            extensions=frozenset({"top_k", "enable_thinking"}),
        ),
    ),
    "groq": Vendor(
        "Groq",
        base_url="https://api.groq.com/openai/v1",
        form=(api_key("Starts with gsk_."),),
        # https://console.groq.com/docs/openai (read 2026-11-22): chat and responses; what it does not know in a message is a 400.
        quirks=Quirks(endpoints=frozenset({CHAT, RESPONSES}), max_tokens_field="max_completion_tokens", strict_messages=True),
    ),
    "mistral": Vendor(
        "Mistral",
        base_url="https://api.mistral.ai/v1",
        form=(api_key("From console.mistral.ai."),),
        # It answers 422 to every field that it does not know.
        quirks=Quirks(endpoints=frozenset({CHAT, EMBEDDINGS}), renames=_OLD_LIMIT, strict_messages=True, stream_usage=False),
    ),
    "openrouter": Vendor(
        "OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        form=(api_key("Starts with sk-or-."),),
        quirks=Quirks(endpoints=frozenset({CHAT, EMBEDDINGS, COMPLETIONS}), developer_role=True, extensions=frozenset({"top_k"})),
    ),
    "xai": Vendor(
        "xAI (Grok)",
        base_url="https://api.x.ai/v1",
        form=(api_key("Starts with xai-."),),
        quirks=Quirks(endpoints=frozenset({CHAT, RESPONSES}), max_tokens_field="max_completion_tokens"),
    ),
    "perplexity": Vendor(
        "Perplexity",
        base_url="https://api.perplexity.ai",
        form=(api_key("Starts with pplx-."),),
        quirks=Quirks(endpoints=frozenset({CHAT}), renames=_OLD_LIMIT, extensions=frozenset({"top_k"})),
    ),
    "zhipu": Vendor(
        "Zhipu (GLM)",
        base_url="https://open.bigmodel.cn/api/paas/v4",
        form=(
            api_key("From bigmodel.cn for the address there, from z.ai for the one there."),
            address("China: leave it empty. Elsewhere: https://api.z.ai/api/paas/v4."),
        ),
        quirks=Quirks(endpoints=frozenset({CHAT, EMBEDDINGS}), renames=_OLD_LIMIT, extensions=frozenset({"thinking"})),
    ),
}
_VENDORS = {**ADAPTERS, **COMPATIBLE_VENDORS}
# The last link of a route's chain, which is no vendor and none of the types that an admin chooses from. Its provider has this name too.
FIXED_ANSWER = "fixed-answer"
_CUSTOM_FIELD = FormField(
    "adapter", "Adapter", "Where its class lives, e.g. our_adapters.acme:Acme; one of those in LLM_CUSTOM_ADAPTERS.", required=True
)
# The classes that `custom` may load: importing a module runs it, and who fills in a form is not thereby who runs the machine.
_custom_allowed: set[str] = set()


def register(kind: str, vendor: Vendor) -> None:
    """Adds a kind to this process. Raises ConfigurationError where there is one of that name."""
    if kind in _VENDORS or kind == CUSTOM:
        raise ConfigurationError(f"{kind!r} is a provider type already")
    _VENDORS[kind] = vendor


def allow_custom(paths: Iterable[str]) -> None:
    """Lets providers of the custom kind use these classes (`package.module:Class`), which are not imported before one does."""
    _custom_allowed.update(paths)


def kinds() -> list[tuple[str, str]]:
    """(kind, label), as a form offers them."""
    return [*((kind, vendor.label) for kind, vendor in _VENDORS.items()), (CUSTOM, "Custom adapter")]


def form(kind: str) -> tuple[FormField, ...]:
    """The fields an admin fills in for this kind. Raises ConfigurationError for an unknown kind."""
    if kind == CUSTOM:
        return (_CUSTOM_FIELD, FormField("api_key", "API key", secret=True))
    vendor = _vendor(kind)
    declared: tuple[FormField, ...] = vendor.form or _load(vendor.path).form
    return declared


def refusals(kind: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Option → why it cannot have the value it has, as its declaration tells. Raises ConfigurationError for an unknown kind."""
    found = {field.name: field.refusal(options[field.name]) for field in form(kind) if not field.secret and field.name in options}
    adapter = options.get("adapter")
    if kind == CUSTOM and isinstance(adapter, str) and adapter and adapter not in _custom_allowed:
        found["adapter"] = f"{adapter!r} is not allowed here: an operator has to name it in LLM_CUSTOM_ADAPTERS first."
    return {name: refusal for name, refusal in found.items() if refusal}


def default_base_url(kind: str) -> str:
    """The vendor's own address, "" where only the admin can know it. Raises ConfigurationError for an unknown kind."""
    return "" if kind == CUSTOM else _vendor(kind).base_url


def adapter_for(spec: ProviderSpec) -> Adapter:
    """The adapter of a provider. Raises ConfigurationError naming the provider and what to correct."""
    if spec.kind == FIXED_ANSWER:
        fixed: Adapter = _load("providers.adapters.fixed:Fixed")(spec)
        return fixed
    try:
        vendor = Vendor("", str(spec.options.get("adapter") or "")) if spec.kind == CUSTOM else _vendor(spec.kind)
        base_url = spec.base_url or vendor.base_url
        if not base_url:
            raise ConfigurationError("it needs a base URL")
        for name, refusal in refusals(spec.kind, spec.options).items():
            raise ConfigurationError(f"option {name}: {refusal}")
        arguments = () if vendor.quirks is None else (vendor.quirks,)
        adapter: Adapter = _load(vendor.path)(msgspec.structs.replace(spec, base_url=base_url), *arguments)
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
