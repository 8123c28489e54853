"""The sections there are, in the order in which they are taken: what an entry names comes before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llmcontrol.portable.alerts import AlertChannels, AlertRules
from llmcontrol.portable.budgets import Budgets
from llmcontrol.portable.exchange_rates import ExchangeRates
from llmcontrol.portable.grants import Grants
from llmcontrol.portable.kind import Kind
from llmcontrol.portable.models import Models
from llmcontrol.portable.prices import Prices
from llmcontrol.portable.prompts import Prompts
from llmcontrol.portable.providers import Providers
from llmcontrol.portable.routes import Routes
from llmcontrol.portable.task_types import TaskTypes
from llmcontrol.portable.teams import Teams

_ALL: Final[tuple[type[Kind], ...]] = (
    Providers,
    Models,
    Prices,
    ExchangeRates,
    Routes,
    Prompts,
    TaskTypes,
    Teams,
    Grants,
    Budgets,
    AlertChannels,
    AlertRules,
)
KINDS: Final[Mapping[str, type[Kind]]] = {kind.section: kind for kind in _ALL}
