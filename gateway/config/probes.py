"""What probes need to know of the ledger: see `gateway.probing.Ledger`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from core.clock import Clock, SystemClock
from core.config import ModelSpec
from gateway.probing import Known
from monitoring import probes
from monitoring.threads import in_thread


class DatabaseLedger:
    """Reads in threads of the loop's pool; every few minutes, and only of providers with a budget for probes."""

    def __init__(self, clock: Clock = SystemClock()) -> None:  # noqa: B008  (has no state)
        self._clock = clock

    async def known(self, provider_id: str, models: Sequence[ModelSpec], since_s: float) -> Known:
        return await in_thread(lambda: self._read(provider_id, models, datetime.fromtimestamp(since_s, UTC)))

    def _read(self, provider_id: str, models: Sequence[ModelSpec], since: datetime) -> Known:
        spent = probes.spent_micros([provider_id], datetime.fromtimestamp(self._clock.wall(), UTC))
        called = (model.id for model in models if probes.was_called(model.alias, provider_id, model.model_id, since))
        return Known(spent.get(provider_id, 0), frozenset(called))
