"""What a caller is told about a budget, in whole sentences."""

from __future__ import annotations

from datetime import UTC, datetime

from core.config import BudgetSpec
from core.errors import BudgetUnavailable
from core.money import plain


def amount(spec: BudgetSpec, value: int) -> str:
    """In the budget's unit: '0.25 USD', '1,200 tokens'."""
    if spec.kind == "money":
        return f"{plain(value)} {spec.currency}"
    return f"{value:,} {spec.kind}"


def exhausted(spec: BudgetSpec, ends_at: float, needed: int, spent: int, leased: int) -> str:
    """`leased` of the account is what running requests may still use, here and in other processes."""
    sentences = [
        f"{spec.name} is exhausted: {amount(spec, spent)} of {amount(spec, spec.limit)} are used",
        f" and {amount(spec, leased)} are reserved by requests under way" if leased > 0 else "",
        f"; this request may need up to {amount(spec, needed)}.",
        f" It renews at {datetime.fromtimestamp(ends_at, UTC):%Y-%m-%d %H:%M} UTC." if ends_at != float("inf") else " It does not renew.",
    ]
    if leased > 0 and spent + needed <= spec.limit:
        sentences.append(" What is reserved and not used is free again a second after those requests end.")
    elif spec.kind == "tokens" or needed > spec.limit:
        sentences.append(" A smaller max_tokens lets a request need less.")
    return "".join(sentences)


def unavailable(spec: BudgetSpec) -> BudgetUnavailable:
    return BudgetUnavailable(f"{spec.name} cannot be checked, because the database does not answer; try again shortly.", retry_after_s=1.0)
