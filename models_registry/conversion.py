"""Which prices cannot be reported, because nobody has entered an exchange rate for them."""

from __future__ import annotations

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Q
from django.utils import timezone

from models_registry.models import ExchangeRate, Price


def unconvertible(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """One sentence for each currency of prices in force that has no rate to the reporting currency. Raises DatabaseError."""
    now, reporting = timezone.now(), settings.REPORTING_CURRENCY
    in_force = Price.objects.using(using).filter(Q(valid_to=None) | Q(valid_to__gt=now), valid_from__lte=now).exclude(currency=reporting)
    rates = ExchangeRate.objects.using(using).filter(valid_from__lte=now)
    known = {*rates.filter(quote=reporting).values_list("base", flat=True), *rates.filter(base=reporting).values_list("quote", flat=True)}
    missing = sorted(set(in_force.order_by().values_list("currency", flat=True).distinct()) - known)
    return [
        f"There are prices in {currency}, and no exchange rate from {currency} to {reporting} is in force: what they cost is left out of "
        f"every sum in {reporting}, and budgets in {reporting} refuse their models. Enter the rate under Exchange rates."
        for currency in missing
    ]
