"""What a key may at most be: a part of what its team may. Asked when it is written; and when it is used (`scopes_within`, `end_of`), at
the gateway and on REST alike: what the team loses later, its keys lose too. A team's limits hold beside those of its keys.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet

from access import openness, scope
from access.models import ApiKey, Budget, Team
from core.addresses import read_networks
from models_registry.models import LLMModel, Route

MAX_NETWORKS = 100
_LIMITS = ("requests_per_minute", "tokens_per_minute", "max_concurrency")


def refuse_beyond(key: ApiKey, fields: Collection[str], giver: Any, now: datetime) -> None:
    """Raises ValidationError by field, for those of `fields` in which `key` would exceed its team. `giver` None = no person."""
    team, refused = key.team, dict[str, str]()
    if "scopes" in fields and team.scopes is not None and (beyond := [one for one in key.scopes if one not in team.scopes]):
        refused["scopes"] = f"Keys of this team are not for {', '.join(beyond)}: leave that out, or have the team's scopes widened."
    if "allowed_models" in fields and (unusable := _unusable(key, giver)):
        refused["allowed_models"] = f"This team may not use {', '.join(unusable[:5])}: leave that out, or have it granted to the team."
    for name in _LIMITS:
        own, of_team = getattr(key, name), getattr(team, name)
        if name in fields and own is not None and of_team is not None and own > of_team:
            refused[name] = f"The whole team has {of_team}: write at most that."
    if "expires_at" in fields and (latest := latest_end(team.max_key_days, key.created_at or now)) and (key.expires_at or latest) > latest:
        refused["expires_at"] = f"Keys of this team last {team.max_key_days} days: choose a moment up to {latest:%Y-%m-%d %H:%M} UTC."
    if refused:
        raise ValidationError(refused)


def scopes_within(of_key: Collection[str], of_team: Collection[str] | None) -> frozenset[str]:
    """`of_team` None = everything."""
    return frozenset(of_key) if of_team is None else frozenset(of_key) & frozenset(of_team)


def end_of(expires_at: datetime | None, created_at: datetime, max_key_days: int | None) -> datetime | None:
    """When a key ends, by itself or because its team's keys do; None = never."""
    latest = latest_end(max_key_days, created_at)
    return latest if expires_at is None else min(expires_at, latest or expires_at)


def latest_end(max_key_days: int | None, begun: datetime) -> datetime | None:
    return begun + timedelta(days=max_key_days) if max_key_days else None


def _unusable(key: ApiKey, giver: Any) -> list[str]:
    """Aliases with nothing behind them that is open to the team. Who may use all teams may also name what does not exist yet;
    to others that looks as what is closed to them."""
    wanted = set(key.allowed_models or ())
    if not wanted:
        return []
    closed, holders = openness.read(), [("team", str(key.team_id))]
    barred_models, barred_routes = closed.barred_models(holders), closed.barred_routes(holders)
    usable = _names(LLMModel.objects.filter(alias__in=wanted).exclude(pk__in=barred_models))
    usable |= _names(Route.objects.filter(alias__in=wanted).exclude(pk__in=barred_routes))
    usable -= {alias for pk, alias in closed.routes.items() if pk in barred_routes}
    unusable = wanted - usable
    if giver is None or giver.has_perm("access.add_apikey"):
        unusable &= {name for rows in (LLMModel.objects, Route.objects) for name in _names(rows.filter(alias__in=unusable))}
    return sorted(unusable)


def _names(rows: QuerySet[Any]) -> set[str]:
    return set(rows.order_by().values_list("alias", flat=True))


def refuse_stranger(giver: Any, permission: str, team: Team) -> None:
    """Raises ValidationError on `team` where `giver` may not do that there. None = no person asks, but the system itself."""
    if giver is not None and not giver.has_perm(permission) and str(team.pk) not in scope.teams_with(giver, permission):
        raise ValidationError({"team": "You may not do this in this team: ask one of its managers."})


def refuse_overspending(team: Team, budget: Budget) -> None:
    """Raises ValidationError on `max_spend` where the team itself may not spend that much in as long."""
    of_team = Budget.objects.filter(team=team, hard=True, kind=budget.kind, currency=budget.currency, period=budget.period)
    least = of_team.order_by("limit").values_list("limit", flat=True).first()
    if least is not None and budget.limit > least:
        raise ValidationError({"max_spend": "This is more than the whole team may spend in that time: write at most its budget."})


def checked_networks(networks: Any) -> list[str] | None:
    """As they are kept; None = from anywhere. Raises ValidationError on `source_networks`."""
    if networks is None:
        return None
    try:
        if not isinstance(networks, list) or not networks:
            raise ValueError("Give at least one network, or null for anywhere.")
        if len(networks) > MAX_NETWORKS:
            raise ValueError(f"At most {MAX_NETWORKS} networks.")
        if not all(isinstance(network, str) for network in networks):
            raise ValueError("Each network is a text such as 10.1.0.0/16.")
        return [str(network) for network in dict.fromkeys(read_networks(networks))]
    except ValueError as error:
        raise ValidationError({"source_networks": str(error)}) from None
