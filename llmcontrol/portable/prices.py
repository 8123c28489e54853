"""Prices: one that is not the same ends the one here, from now on or from its moment on. None is edited."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Q

from llmcontrol.portable import models
from llmcontrol.portable.dated import MOMENT, Dated
from llmcontrol.portable.document import Entry
from models_registry import price_file
from models_registry.api.serializers import PriceSerializer
from models_registry.models import Price
from monitoring.api.bodies import in_body_words


class Prices(Dated):
    section, model = "prices", Price
    key = (*models.NAMES, "service_tier", "min_input_tokens", MOMENT)

    def rows(self) -> Iterable[Price]:
        return Price.objects.select_related("model__provider").filter(Q(valid_to=None) | Q(valid_to__gt=self.scene.now))

    def shown(self, row: Price) -> Entry:
        said = PriceSerializer(row).data
        words = {name: said[name] for name in ("service_tier", "min_input_tokens", "currency")}
        return {
            **models.named(row.model),
            **words,
            **self.moment_shown(row.valid_from),
            "per_million": said["per_million"],
            "source": row.source,
        }

    def save(self, row: Price | None, entry: Entry, changed: Entry) -> Price:
        model = models.found({name: entry.get(name, "") for name in models.NAMES})
        body = {name: value for name, value in entry.items() if name not in models.NAMES}
        asked = PriceSerializer(data={**body, "model": model.pk})
        asked.is_valid(raise_exception=True)
        with in_body_words():
            if row is not None and price_file.same_amounts(row, asked.validated_data):
                return row
        return asked.save(**{MOMENT: asked.validated_data.get(MOMENT, self.scene.now)})

    def permission(self, verb: str) -> str:
        return super().permission("add")
