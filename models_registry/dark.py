"""What routes lose when models are switched off or deleted: said to whoever does it, since a route keeps names and no links."""

from __future__ import annotations

from models_registry.models import LLMModel, Route


def names_of(route: Route) -> list[str]:
    """Every alias that the route may ask, each once."""
    return list(dict.fromkeys(name for name in (*route.targets, *route.fallbacks, route.degrade_to) if name))


def unanswered(route: Route) -> list[str]:
    """Those that no model answers to that is on: the route skips them."""
    names = names_of(route)
    on = set(LLMModel.objects.filter(alias__in=names, is_active=True).values_list("alias", flat=True))
    return [name for name in names if name not in on]


def routes_that_lose(model: LLMModel) -> list[str]:
    """Names of the routes that ask this model, and no other of its alias that is on."""
    if LLMModel.objects.filter(alias=model.alias, is_active=True).exclude(pk=model.pk).exists():
        return []
    return [route.alias for route in Route.objects.all() if model.alias in names_of(route)]
