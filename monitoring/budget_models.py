"""What budgets have spent, who may spend more of them, and the entries that say why, as rows."""

from __future__ import annotations

from django.db import models


class BudgetAccount(models.Model):
    """What one budget has spent in one period, and what processes may still spend of it without asking: `leased`.

    In the budget's unit: micro-units of its currency, tokens or requests. Of a hard budget, spent + leased never exceed the limit,
    save by what a vendor delivers beyond what was asked of it. `spent` is the sum of the entries and of what is `carried` of those that
    are not kept any more, `leased` that of the leases.
    """

    budget_id = models.CharField(max_length=36)
    period_start = models.BigIntegerField(help_text="Wall seconds, UTC; 0 = of all time.")
    spent = models.BigIntegerField(default=0)
    carried = models.BigIntegerField(default=0, help_text="What entries amounted to that are not kept any more.")
    leased = models.BigIntegerField(default=0)
    alerted_percent = models.PositiveSmallIntegerField(default=0, help_text="The highest threshold that was reported.")
    alerted_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["budget_id", "period_start"], name="budget_account")]

    def __str__(self) -> str:
        return f"account {self.pk}"


class BudgetLease(models.Model):
    """What one process may spend of an account: `granted` less what the ledger has `charged` to it. The holder is the process's
    journal. It raises `renewed` while it lives; a lease that stands still for LLM_BUDGET_LEASE_S is released by whoever sees that."""

    account = models.ForeignKey(BudgetAccount, on_delete=models.CASCADE, related_name="leases")
    holder = models.CharField(max_length=40, db_index=True)
    granted = models.BigIntegerField(default=0)
    charged = models.BigIntegerField(default=0)
    renewed = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "holder"], name="budget_lease")]

    def __str__(self) -> str:
        return f"lease {self.pk}"


class BudgetEntry(models.Model):
    """What one attempt reserved of one budget, and what became of it. Never edited: a correction is an entry of its own."""

    class State(models.TextChoices):
        SETTLED = "settled", "Settled"
        RELEASED = "released", "Released"
        EXPIRED = "expired", "Expired"
        CORRECTION = "correction", "Correction"

    started_at = models.DateTimeField()
    request_id = models.CharField(max_length=40)
    attempt = models.PositiveSmallIntegerField()
    budget_id = models.CharField(max_length=36)
    period_start = models.BigIntegerField()
    lease_id = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField()
    amount = models.BigIntegerField()
    state = models.CharField(max_length=10, choices=State.choices)
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name_plural = "budget entries"
        constraints = [models.UniqueConstraint(fields=["request_id", "attempt", "budget_id"], name="budget_entry")]
        indexes = [
            models.Index(fields=["budget_id", "period_start", "id"], name="budget_entry_account"),
            models.Index(fields=["started_at"], name="budget_entry_started"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}-{self.attempt}"
