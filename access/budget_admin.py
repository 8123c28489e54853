"""Budgets in the admin: what may be used, and what is."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminTextInputWidget

from access.budget_rules import limit_of, scope_of
from access.budgets import Standing, standing_of, standings_of, written
from access.models import Budget
from monitoring.admin import Ledger
from monitoring.columns import display
from monitoring.keyset import KeysetChangeList
from monitoring.models import BudgetEntry
from monitoring.pages import amount, to_cents

_FIXED = ("team", "key", "provider", "user", "kind", "currency", "period")


class BudgetForm(forms.ModelForm):
    limit = forms.CharField(
        label=_("Limit"),
        widget=UnfoldAdminTextInputWidget,
        max_length=40,
        help_text=_("Money as a decimal amount, e.g. 250.00; tokens and requests as whole numbers."),
    )

    class Meta:
        model = Budget
        fields = ("team", "key", "provider", "user", "kind", "currency", "limit", "period", "hard")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            self.initial["limit"] = written(self.instance, self.instance.limit)

    def clean_limit(self) -> int:
        kind = self.cleaned_data.get("kind") or self.instance.kind
        try:
            return limit_of(kind, self.cleaned_data["limit"])
        except ValueError as refused:
            raise forms.ValidationError(str(refused)) from None

    def _post_clean(self) -> None:
        """What the field has refused already, the row is not asked about again."""
        if "limit" in self.errors:
            self.instance.limit = 1
        super()._post_clean()  # type: ignore[misc]


class BudgetAdmin(ModelAdmin):
    when_empty = _(
        "No budget yet. One says how much money, tokens or requests a team, a key, a user or a provider may use in a day, week or month."
    )
    form = BudgetForm
    list_display = ("what", "shown_limit", "used", "reserved", "left", "alerted", "renews", "hard")
    list_filter = ("kind", "period", "hard", "team")
    list_select_related = ("team", "key", "provider")
    search_fields = ("team__name", "key__name", "provider__name", "user")
    fieldsets = (
        (_("Whose it is: choose one"), {"fields": (("team", "key"), ("provider", "user"))}),
        (_("What it allows"), {"fields": (("kind", "currency"), "limit", "period", "hard")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        now = ((_("Now"), {"fields": (("used", "reserved", "left"), ("alerted", "renews"))}),) if obj else ()
        return (*now, *self.fieldsets)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("used", "reserved", "left", "alerted", "renews", *_FIXED) if obj else ()

    @display(description=_("Budget"))
    def what(self, row: Budget) -> str:
        scope, _id, name = scope_of(row)
        return f"{gettext(scope)} {name}: {row.get_kind_display().lower()}"

    @display(description=_("Limit"))
    def shown_limit(self, row: Budget) -> str:
        return f"{self._shown(row, row.limit)} · {row.get_period_display()}"

    @display(description=_("Used"))
    def used(self, row: Budget) -> str:
        return self._shown(row, _standing(row).used)

    @display(description=_("Reserved"))
    def reserved(self, row: Budget) -> str:
        return self._shown(row, _standing(row).reserved)

    @display(description=_("Left"))
    def left(self, row: Budget) -> str:
        return self._shown(row, _standing(row).left)

    @display(description=_("Alert"), label={"none": "default", "50 %": "info", "80 %": "warning", "100 %": "danger"})
    def alerted(self, row: Budget) -> str:
        percent = _standing(row).alerted_percent
        return f"{percent} %" if percent else "none"

    @display(description=_("Renews"))
    def renews(self, row: Budget) -> str:
        ends_at = _standing(row).ends_at
        return f"{ends_at:%Y-%m-%d %H:%M} UTC" if ends_at else gettext("never")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return WithStandings

    @staticmethod
    def _shown(row: Budget, value: int) -> str:
        if row.kind == Budget.Kind.MONEY:
            return amount(to_cents(value), row.currency)
        return f"{value:,} {row.get_kind_display().lower()}"


class WithStandings(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        standings = standings_of(self.result_list)
        for row in self.result_list:
            row.standing = standings[row.pk]


def _standing(row: Any) -> Standing:
    """Asked for once, however many columns tell of it."""
    if not hasattr(row, "standing"):
        row.standing = standing_of(row)
    return row.standing


class WithBudgets(KeysetChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Any] = self.result_list
        ids = {row.budget_id for row in rows}
        budgets = Budget.objects.select_related("team", "key", "provider").filter(pk__in=ids)
        found = {str(budget.pk): budget for budget in budgets}
        for row in rows:
            row.found = found.get(row.budget_id)


class BudgetEntryAdmin(Ledger):
    """Amounts are in the budget's unit: of money millionths."""

    when_empty = _("No entry yet. Each call that counts in a budget leaves one: what it reserved, and what it came to.")

    list_display = ("when", "short_id", "attempt", "budget", "reserved", "amount", "outcome", "note")
    list_display_links = ("when", "short_id")
    list_filter = ("state",)
    search_help_text = _("A whole request id, or the id of a budget")
    fields = (("when", "budget"), ("request_id", "attempt"), ("reserved", "amount"), ("state", "note"))
    readonly_fields = ("when", "budget")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        return WithBudgets

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("request_id__exact", "budget_id__exact")

    @display(description=_("Budget"))
    def budget(self, row: BudgetEntry) -> str:
        found = row.found if hasattr(row, "found") else Budget.objects.filter(pk=row.budget_id).first()
        return str(found) if found else gettext("deleted (%s)") % row.budget_id

    @display(
        description=_("State"),
        ordering="state",
        label={"settled": "success", "released": "info", "expired": "warning", "correction": "warning"},
    )
    def outcome(self, row: BudgetEntry) -> tuple[str, str]:
        return row.state, row.get_state_display()
