"""What can be done with models and prices. Every write validates and runs in one transaction; ValidationError names the field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from core.money import MAX_PRICE_PER_MILLION, micros_from_decimal, rate_from_decimal
from models_registry import catalogue, sync
from models_registry.models import ExchangeRate, LLMModel, Price
from models_registry.sync import SyncDiff
from providers.models import Provider
from providers.services import list_vendor_models

BUCKETS = ("input", "cached_input", "cache_write", "output")
# Left empty where the tokens cost what text costs in the same direction.
OPTIONAL_BUCKETS = ("cache_write_1h", "reasoning", "input_audio", "input_image", "output_audio", "output_image")
ALL_BUCKETS = BUCKETS + OPTIONAL_BUCKETS


def sync_models(provider: Provider, apply: bool, accept: bool | Mapping[str, Collection[str]] = False) -> SyncDiff:
    """Compares the vendor's list with the rows of this provider, and with `apply` brings the rows in line.

    Nothing is deleted: what the vendor no longer lists is switched off and, should it come back, on again. What an admin
    switched off stays off. `accept` says which of the proposals are taken: all, none, or fields of catalogue.FIELDS by model
    id. They fill gaps, and never replace what a row has. Raises core.errors.GatewayError, core.secrets.CannotOpen,
    ValidationError.
    """
    listed = sync.checked(list_vendor_models(provider))
    with transaction.atomic():
        Provider.objects.select_for_update().get(pk=provider.pk)
        rows = list(LLMModel.objects.filter(provider=provider))
        priced = set(LLMModel.objects.filter(provider=provider, prices__isnull=False))
        diff = sync.difference(provider, listed, rows, priced, apply)
        accepted = _accepted(diff, accept)
        if apply:
            rows += sync.apply_list(provider, diff, rows, listed)
            _take_proposals(diff, accepted, rows, priced)
    return diff


def keep_from_sync(model: LLMModel) -> None:
    """For who switches it on or off: from now on it is a person's decision, which no sync takes back. The caller saves."""
    model.gone_at = None


def _accepted(diff: SyncDiff, accept: bool | Mapping[str, Collection[str]]) -> Mapping[str, Collection[str]]:
    """Model id → fields. Raises ValidationError for what is not proposed, or could not be taken."""
    if not accept:
        return {}
    if not diff.applied:
        raise ValidationError({"accept_proposals": "Proposals are taken only together with apply."})
    proposed: Mapping[str, Collection[str]] = {proposal.model_id: catalogue.FIELDS for proposal in diff.proposals}
    if accept is True:
        return proposed
    if unknown := sorted(set(accept) - set(proposed)):
        raise ValidationError({"accept_proposals": f"Nothing is proposed for {', '.join(unknown)[:500]}."})
    return accept


def _take_proposals(diff: SyncDiff, accepted: Mapping[str, Collection[str]], rows: list[LLMModel], priced: set[LLMModel]) -> None:
    proposals = {proposal.model_id: proposal for proposal in diff.proposals}
    for row in rows:
        proposal, fields = proposals.get(row.model_id), accepted.get(row.model_id, ())
        if proposal is None:
            continue
        taken = sync.fill_in(row, proposal, fields)
        if "per_million" in fields and proposal.per_million and row not in priced:
            for size, amounts in ((0, proposal.per_million), *proposal.tiers):
                set_price(row, currency=proposal.currency, per_million=amounts, source=proposal.price_source, min_input_tokens=size)
            taken.append("per_million")
        if taken:
            diff.taken[row.model_id] = taken


def set_price(
    model: LLMModel,
    *,
    currency: str,
    per_million: Mapping[str, str | Decimal],
    valid_from: datetime | None = None,
    source: str = "",
    service_tier: str = "",
    min_input_tokens: int = 0,
) -> Price:
    """What `model` costs from `valid_from` (None: now) on, in units of `currency` per million tokens.

    The price before it, of the same tier and size, ends at that moment, and nothing that was charged changes.
    `cached_input` and `cache_write` follow `input` where they are not given, OPTIONAL_BUCKETS stay empty.
    Raises ValidationError by field, `per_million.<bucket>` for an amount.
    """
    amounts = price_columns(per_million)
    with transaction.atomic():
        # The lock makes two prices for one model take turns.
        LLMModel.objects.select_for_update().get(pk=model.pk)
        start = valid_from or timezone.now()
        latest = latest_price(model, service_tier, min_input_tokens)
        _refuse_overlap(latest, start)
        if latest is not None and latest.valid_to is None:
            latest.valid_to = start
            latest.save(update_fields=["valid_to"])
        price = Price(
            model=model,
            service_tier=service_tier,
            min_input_tokens=min_input_tokens,
            currency=currency,
            valid_from=start,
            source=source,
            **amounts,
        )
        price.full_clean()
        price.save(force_insert=True)
    return price


def latest_price(model: LLMModel, service_tier: str = "", min_input_tokens: int = 0) -> Price | None:
    """The one that began last, or will."""
    if not isinstance(min_input_tokens, int):
        raise ValidationError({"min_input_tokens": "Write a whole number of tokens."})
    prices = Price.objects.filter(model=model, service_tier=service_tier, min_input_tokens=min_input_tokens)
    return prices.order_by("-valid_from").first()


def set_exchange_rate(*, base: str, quote: str, rate: str | Decimal, valid_from: datetime | None = None, source: str = "") -> ExchangeRate:
    """What one unit of `base` is worth in `quote` from `valid_from` (None: now) on. Raises ValidationError by field."""
    row = ExchangeRate(base=base, quote=quote, rate_e10=_exchange_rate(rate), valid_from=valid_from or timezone.now(), source=source)
    with transaction.atomic():
        row.full_clean()
        row.save(force_insert=True)
    return row


def _exchange_rate(rate: str | Decimal) -> int:
    """In core.money.RATE_SCALE-ths. Raises ValidationError."""
    try:
        _refuse_binary(rate)
        return rate_from_decimal(rate)
    except ValueError as error:
        raise ValidationError({"rate": str(error)}) from None


def price_columns(per_million: Mapping[str, str | Decimal]) -> dict[str, int]:
    """Column of Price → micro-units per million tokens. Raises ValidationError by bucket."""
    if unknown := sorted(set(per_million) - set(ALL_BUCKETS)):
        raise ValidationError({f"per_million.{name}": f"Unknown; the buckets are {', '.join(ALL_BUCKETS)}." for name in unknown})
    if missing := [name for name in ("input", "output") if name not in per_million]:
        raise ValidationError({f"per_million.{name}": "This amount is needed; write 0 for free." for name in missing})
    amounts: dict[str, int] = {}
    errors: dict[str, str] = {}
    for bucket in (*BUCKETS, *(name for name in OPTIONAL_BUCKETS if name in per_million)):
        try:
            amounts[f"{bucket}_micros"] = _micros(per_million.get(bucket, per_million["input"]))
        except ValueError as error:
            errors[f"per_million.{bucket}"] = str(error)
    if errors:
        raise ValidationError({name: text for name, text in errors.items() if name.removeprefix("per_million.") in per_million})
    return amounts


def _micros(amount: str | Decimal) -> int:
    """Raises ValueError with a sentence. The size is looked at first: 1e999999 is a number, and a long one."""
    _refuse_binary(amount)
    try:
        exact = Decimal(amount)
        in_range = exact.is_finite() and 0 <= exact <= MAX_PRICE_PER_MILLION
    except (ArithmeticError, TypeError, ValueError):
        raise ValueError("Write a decimal number, e.g. 2.50.") from None
    if not in_range:
        raise ValueError(f"Write an amount from 0 to {MAX_PRICE_PER_MILLION}.")
    return micros_from_decimal(exact)


def _refuse_binary(amount: Any) -> None:
    if isinstance(amount, float | bool):
        raise ValueError('Write the amount as text, e.g. "2.50": binary fractions do not hold money exactly.')


def _refuse_overlap(latest: Price | None, start: datetime) -> None:
    if latest is None:
        return
    if start <= latest.valid_from:
        raise ValidationError(
            {"valid_from": f"The latest price begins at {latest.valid_from.isoformat()}; a new one has to begin after that."}
        )
    if latest.valid_to is not None and start < latest.valid_to:
        raise ValidationError(
            {"valid_from": f"The latest price ends at {latest.valid_to.isoformat()}; a new one has to begin then or later."}
        )
