"""What is open to whom, where providers, models, routes and prompts are not open to every team. One rule, for people and for keys.

- A route, model or prompt that is open to everyone needs no grant; one that is not needs a grant of its own.
- A provider that is not open closes its models, save to those with a grant on it or on the model itself.
- Behind a route stand the models that are open: who may use the route does not get at others by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec
from django.db.models import Q

from access.models import Grant
from models_registry.models import LLMModel, PromptTemplate, Route
from providers.models import Visibility

_Holder = tuple[str, str]


class ClosedModel(msgspec.Struct, frozen=True):
    """`opened_by`: ids of what a grant may be on."""

    id: str
    alias: str
    opened_by: frozenset[str]


class Openness(msgspec.Struct, frozen=True):
    """Everything that is not open to everyone, and for whom it is open all the same. Read once, asked often."""

    models: tuple[ClosedModel, ...]
    routes: Mapping[str, str]  # id → alias
    grants: Mapping[_Holder, frozenset[str]]  # ("team" | "user", id) → ids of providers, models, routes, prompts
    prompts: frozenset[str] = frozenset()  # ids

    def barred_models(self, holders: Iterable[_Holder]) -> frozenset[str]:
        """Ids of the models that none of `holders` may use."""
        granted = self._granted(holders)
        return frozenset(model.id for model in self.models if not model.opened_by & granted)

    def barred_routes(self, holders: Iterable[_Holder]) -> frozenset[str]:
        """Ids of routes, likewise."""
        return frozenset(self.routes) - self._granted(holders)

    def barred_prompts(self, holders: Iterable[_Holder]) -> frozenset[str]:
        """Ids of prompts, likewise."""
        return self.prompts - self._granted(holders)

    def _granted(self, holders: Iterable[_Holder]) -> frozenset[str]:
        return frozenset[str]().union(*(self.grants.get(holder, frozenset()) for holder in holders))


def read() -> Openness:
    """In four queries, however many rows there are."""
    closed = LLMModel.objects.filter(Q(visibility=Visibility.GRANTED) | Q(provider__visibility=Visibility.GRANTED)).order_by()
    models = tuple(
        ClosedModel(str(pk), alias, frozenset((str(pk),) if own == Visibility.GRANTED else (str(pk), str(provider))))
        for pk, alias, own, provider in closed.values_list("pk", "alias", "visibility", "provider_id")
    )
    routes = {str(pk): alias for pk, alias in Route.objects.filter(visibility=Visibility.GRANTED).order_by().values_list("pk", "alias")}
    prompts = PromptTemplate.objects.filter(visibility=Visibility.GRANTED).order_by().values_list("pk", flat=True)
    grants: dict[_Holder, set[str]] = defaultdict(set)
    columns = ("team_id", "user_id", "provider_id", "model_id", "route_id", "prompt_id")
    for team, user, *objects in Grant.objects.order_by().values_list(*columns):
        holder = ("team", str(team)) if team is not None else ("user", str(user))
        grants[holder].update(str(found) for found in objects if found is not None)
    return Openness(models, routes, {holder: frozenset(ids) for holder, ids in grants.items()}, frozenset(map(str, prompts)))
