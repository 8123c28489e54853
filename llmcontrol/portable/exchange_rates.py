"""Exchange rates, as prices: another one begins, and none is edited."""

from __future__ import annotations

from collections.abc import Iterable

from core.money import rate_from_decimal
from llmcontrol.portable.dated import MOMENT, Dated
from llmcontrol.portable.document import Entry
from models_registry.api.serializers import ExchangeRateSerializer
from models_registry.models import ExchangeRate


class ExchangeRates(Dated):
    section, model = "exchange_rates", ExchangeRate
    key = ("base", "quote", MOMENT)

    def rows(self) -> Iterable[ExchangeRate]:
        begun = ExchangeRate.objects.filter(valid_from__lte=self.scene.now).order_by("valid_from")
        in_force = {(row.base, row.quote): row for row in begun}
        return [*in_force.values(), *ExchangeRate.objects.filter(valid_from__gt=self.scene.now)]

    def shown(self, row: ExchangeRate) -> Entry:
        return {"base": row.base, "quote": row.quote, **self.moment_shown(row.valid_from), "rate": row.rate, "source": row.source}

    def save(self, row: ExchangeRate | None, entry: Entry, changed: Entry) -> ExchangeRate:
        asked = ExchangeRateSerializer(data=entry)
        asked.is_valid(raise_exception=True)
        if row is not None and _is(row, asked.validated_data["rate"]):
            return row
        return asked.save(**{MOMENT: asked.validated_data.get(MOMENT, self.scene.now)})

    def permission(self, verb: str) -> str:
        return super().permission("add")


def _is(row: ExchangeRate, rate: str) -> bool:
    try:
        return row.rate_e10 == rate_from_decimal(rate)
    except ValueError:
        return False  # the service says what is wrong with it
