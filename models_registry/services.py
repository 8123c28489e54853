"""What can be done with models and prices. Every write validates and runs in one transaction; ValidationError names the field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from core.errors import ProviderNonsense
from core.money import MAX_PRICE_PER_MILLION, micros_from_decimal
from models_registry.models import LLMModel, Price
from providers.models import Provider
from providers.services import list_vendor_models

BUCKETS = ("input", "cached_input", "cache_write", "output")
MAX_VENDOR_MODELS = 5_000
_MAX_MODEL_ID = 200
_NOT_IN_AN_ALIAS = re.compile(r"[^A-Za-z0-9._:/@-]")


@dataclass(frozen=True, slots=True)
class SyncDiff:
    """Vendor's model ids: not here yet, here but no longer there, and back again. `applied`: the rows follow."""

    new: list[str]
    gone: list[str]
    changed: list[str]
    applied: bool


def sync_models(provider: Provider, apply: bool) -> SyncDiff:
    """Compares the vendor's list with the rows of this provider, and with `apply` brings the rows in line.

    Nothing is deleted: what the vendor no longer lists is switched off and, should it come back, on again. What an admin
    switched off stays off. Raises core.errors.GatewayError, core.secrets.CannotOpen, ValidationError.
    """
    listed = _checked(list_vendor_models(provider))
    with transaction.atomic():
        Provider.objects.select_for_update().get(pk=provider.pk)
        rows = list(LLMModel.objects.filter(provider=provider))
        known = {row.model_id for row in rows}
        gone = [row for row in rows if row.is_active and row.model_id not in listed]
        back = [row for row in rows if row.gone_at is not None and row.model_id in listed]
        diff = SyncDiff(
            new=sorted(listed - known),
            gone=sorted({row.model_id for row in gone}),
            changed=sorted({row.model_id for row in back if not row.is_active}),
            applied=apply,
        )
        if apply:
            _apply(provider, diff.new, gone, back)
    return diff


def set_price(
    model: LLMModel,
    *,
    currency: str,
    per_million: Mapping[str, str | Decimal],
    valid_from: datetime | None = None,
    source: str = "",
) -> Price:
    """What `model` costs from `valid_from` (None: now) on, in units of `currency` per million tokens.

    The price before it ends at that moment, and nothing that was charged changes. `cached_input` and `cache_write` follow
    `input` where they are not given. Raises ValidationError by field, `per_million.<bucket>` for an amount.
    """
    amounts = _amounts(per_million)
    with transaction.atomic():
        # The lock makes two prices for one model take turns.
        LLMModel.objects.select_for_update().get(pk=model.pk)
        start = valid_from or timezone.now()
        latest = Price.objects.filter(model=model).order_by("-valid_from").first()
        _refuse_overlap(latest, start)
        if latest is not None and latest.valid_to is None:
            latest.valid_to = start
            latest.save(update_fields=["valid_to"])
        price = Price(model=model, currency=currency, valid_from=start, source=source, **amounts)
        price.full_clean()
        price.save(force_insert=True)
    return price


def _checked(model_ids: Iterable[str]) -> set[str]:
    """A vendor's list is a stranger's input."""
    listed = set(model_ids)
    if len(listed) > MAX_VENDOR_MODELS:
        raise ProviderNonsense(f"The vendor lists {len(listed)} models; at most {MAX_VENDOR_MODELS} can be taken over.")
    if any(not model_id or len(model_id) > _MAX_MODEL_ID or not model_id.isprintable() for model_id in listed):
        raise ProviderNonsense(f"The vendor lists a model whose name is empty, unprintable or longer than {_MAX_MODEL_ID} characters.")
    return listed


def _apply(provider: Provider, new: list[str], gone: list[LLMModel], back: list[LLMModel]) -> None:
    now = timezone.now()
    taken = set(LLMModel.objects.values_list("alias", flat=True))
    for model_id in new:
        row = LLMModel(provider=provider, model_id=model_id, alias=_alias(provider, model_id, taken))
        row.full_clean()
        row.save(force_insert=True)
        taken.add(row.alias)
    for row in gone:
        row.is_active, row.gone_at = False, now
        row.save(update_fields=["is_active", "gone_at", "updated_at"])
    for row in back:
        row.is_active, row.gone_at = True, None
        row.save(update_fields=["is_active", "gone_at", "updated_at"])


def _alias(provider: Provider, model_id: str, taken: set[str]) -> str:
    """The vendor's own name, or with the provider's in front: two models behind one alias is an admin's decision."""
    alias = _NOT_IN_AN_ALIAS.sub("-", model_id)
    if alias in taken or not alias[0].isalnum():
        alias = f"{provider.name}/{alias}"
    return alias[:_MAX_MODEL_ID]


def _amounts(per_million: Mapping[str, str | Decimal]) -> dict[str, int]:
    """Column → micro-units per million tokens."""
    if unknown := sorted(set(per_million) - set(BUCKETS)):
        raise ValidationError({f"per_million.{name}": f"Unknown; the buckets are {', '.join(BUCKETS)}." for name in unknown})
    if missing := [name for name in ("input", "output") if name not in per_million]:
        raise ValidationError({f"per_million.{name}": "This amount is needed; write 0 for free." for name in missing})
    amounts: dict[str, int] = {}
    errors: dict[str, str] = {}
    for bucket in BUCKETS:
        try:
            amounts[f"{bucket}_micros"] = _micros(per_million.get(bucket, per_million["input"]))
        except ValueError as error:
            errors[f"per_million.{bucket}"] = str(error)
    if errors:
        raise ValidationError({name: text for name, text in errors.items() if name.removeprefix("per_million.") in per_million})
    return amounts


def _micros(amount: str | Decimal) -> int:
    """Raises ValueError with a sentence. The size is looked at first: 1e999999 is a number, and a long one."""
    if isinstance(amount, float | bool):
        raise ValueError('Write the amount as text, e.g. "2.50": binary fractions do not hold money exactly.')
    try:
        exact = Decimal(amount)
        in_range = exact.is_finite() and 0 <= exact <= MAX_PRICE_PER_MILLION
    except (ArithmeticError, TypeError, ValueError):
        raise ValueError("Write a decimal number, e.g. 2.50.") from None
    if not in_range:
        raise ValueError(f"Write an amount from 0 to {MAX_PRICE_PER_MILLION}.")
    return micros_from_decimal(exact)


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
