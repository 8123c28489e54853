"""What a budget may be, what it is called, and how the data plane sees it. Values in, values out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.config import BudgetSpec
from core.money import CURRENCIES, UNKNOWN_CURRENCY, micros_from_decimal

if TYPE_CHECKING:
    from access.models import Budget

SCOPES = ("team", "key", "provider", "user")
MAX_LIMIT = 10**18
# What corrections may bring an account to, in either direction: they leave half of its column, which ends at 9.2 * 10**18, to requests.
MAX_SPENT = 4 * 10**18
# What is spent is counted in these words: others would be another budget.
_FIXED = (*SCOPES, "kind", "currency", "period")
_OFTEN = {"day": "daily", "week": "weekly", "month": "monthly", "total": "overall"}


def scope_of(budget: Budget) -> tuple[str, str, str]:
    """(what it is of, that one's id, its name). Raises ValueError where it is of nothing."""
    for scope in ("team", "key", "provider"):
        holder = getattr(budget, scope)
        if holder is not None:
            return scope, str(holder.pk), holder.name
    if not budget.user:
        raise ValueError("it belongs to no team, key, provider or user")
    return "user", budget.user, budget.user


def spec_of(budget: Budget) -> BudgetSpec:
    """Raises ValueError."""
    scope, holder, name = scope_of(budget)
    if budget.limit <= 0:
        raise ValueError("its limit is not above 0")
    of = f"{budget.currency} budget" if budget.kind == "money" else f"{budget.kind} budget"
    called = f"The {_OFTEN[budget.period]} {of} of {scope} {name}"
    return BudgetSpec(str(budget.pk), called, scope, holder, budget.kind, budget.limit, budget.period, budget.currency, budget.hard)


def amount_of(kind: str, text: str) -> int:
    """In micro-units where it is of money. Raises ValueError with a sentence."""
    try:
        amount = micros_from_decimal(text) if kind == "money" else int(text)
    except (ArithmeticError, ValueError):
        wanted = "an amount with at most six decimals, e.g. 250.00" if kind == "money" else "a whole number"
        raise ValueError(f"Write {wanted}.") from None
    if abs(amount) > MAX_LIMIT:
        raise ValueError("This is more than a million million.")
    return amount


def limit_of(kind: str, text: str) -> int:
    """As `amount_of`, and above 0."""
    limit = amount_of(kind, text)
    if not 0 < limit <= MAX_LIMIT:
        raise ValueError("Write a limit above 0: to allow nothing, revoke the key instead.")
    return limit


def refusals(budget: Budget, kept: Budget | None) -> dict[str, str]:
    """Field → what is wrong with it; {} = all is well. `kept`: as it is stored, None = it is new."""
    found: dict[str, str] = {}
    given = [scope for scope in SCOPES if getattr(budget, scope)]
    if len(given) != 1:
        problem = "Choose one of team, key, provider and user" + ("." if not given else f", not {' and '.join(given)}.")
        found[given[-1] if given else "team"] = problem
    if budget.kind == "money" and budget.currency not in CURRENCIES:
        found["currency"] = UNKNOWN_CURRENCY
    if budget.kind != "money" and budget.currency:
        found["currency"] = "Only a budget of money has a currency; leave it empty."
    if not isinstance(budget.limit, int) or not 0 < budget.limit <= MAX_LIMIT:
        found["limit"] = "Write a limit above 0: to allow nothing, revoke the key instead."
    if kept is not None:
        changed = [name for name in _FIXED if getattr(budget, name) != getattr(kept, name)]
        found |= dict.fromkeys(changed, "This stays as it is, for what is spent was counted by it: make another budget.")
    return found
