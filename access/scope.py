"""Who may do what to which rows: the one predicate behind admin, REST and services.

A permission is Django's "app.codename". Whoever has it by a group or as a superuser has it for every row. A role in a team gives
it for the rows of that team: those that `_RULES` connects with the team, and of models, routes and prompts those that are open to it.
What no rule speaks of is seen by nobody through a team.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from django.contrib.auth.models import Permission
from django.db.models import Model, Q, QuerySet

from access import openness
from access.models import ApiKey, Budget, PersonalToken, Team, TeamMember
from access.roles import TEAM_PERMISSIONS, TEAM_ROLES
from models_registry.models import LLMModel, PromptTemplate, Route
from monitoring.models import BudgetEntry, LabelRollup, OpenRequest, RequestLog, Rollup, UsageRecord

M = TypeVar("M", bound=Model)
Rule = Callable[[Any, Sequence[str]], Q]


def allows(user: Any, permission: str, row: Model | None = None) -> bool:
    """Whether `user` may do that to `row`; without one, to any row at all."""
    if user.has_perm(permission):
        return True
    if row is None:
        return bool(teams_with(user, permission))
    return visible(user, type(row)._default_manager.filter(pk=row.pk), permission).exists()


def visible(user: Any, rows: QuerySet[M], permission: str | None = None) -> QuerySet[M]:
    """Those of `rows` that `user` may see, or has `permission` for."""
    permission = permission or view_permission(rows.model)
    if user.has_perm(permission):
        return rows
    teams, rule = teams_with(user, permission), _RULES.get(rows.model)
    return rows.filter(rule(user, teams)) if rule and teams else rows.none()


def view_permission(model: type[Model]) -> str:
    """Sums are seen by those who see what was summed up, requests under way by those who see them when they have ended."""
    meta = {Rollup: UsageRecord, LabelRollup: UsageRecord, OpenRequest: RequestLog}.get(model, model)._meta
    return f"{meta.app_label}.view_{meta.model_name}"


def teams_with(user: Any, permission: str) -> list[str]:
    """Ids of the teams in which `user` has a role that may do so."""
    if permission not in TEAM_PERMISSIONS:
        return []
    return [team for team, role in _roles_of(user).items() if permission in TEAM_ROLES[role][1]]


def may_whatever(user: Any, other: Any) -> bool:
    """Whether `user` may all that `other` may, over everything and in each team, or would, for somebody who is switched off."""
    mine, roles = user.get_all_permissions(), _roles_of(user)
    granted = Permission.objects.filter(Q(user=other.pk) | Q(group__user=other.pk)).order_by()
    if not {f"{app}.{name}" for app, name in granted.values_list("content_type__app_label", "codename")} <= mine:
        return False
    in_team = {team: mine | TEAM_ROLES[role][1] for team, role in roles.items()}
    return all(TEAM_ROLES[role][1] <= in_team.get(team, mine) for team, role in _stored_roles(other).items())


def _roles_of(user: Any) -> Mapping[str, str]:
    """Team id → role; read once for each user object, as Django does with permissions: one request, one query."""
    if not user.is_active or user.pk is None:
        return {}
    if not hasattr(user, "_llmc_team_roles"):
        user._llmc_team_roles = _stored_roles(user)
    return user._llmc_team_roles


def _stored_roles(user: Any) -> dict[str, str]:
    rows = TeamMember.objects.filter(user=user.pk, role__in=TEAM_ROLES).order_by().values_list("team_id", "role")
    return {str(team): role for team, role in rows}


def _of_team(column: str) -> Rule:
    return lambda user, teams: Q(**{f"{column}__in": teams})


def _open_models(user: Any, teams: Sequence[str]) -> Q:
    return ~Q(pk__in=openness.read().barred_models(_holders(user, teams)))


def _open_routes(user: Any, teams: Sequence[str]) -> Q:
    return ~Q(pk__in=openness.read().barred_routes(_holders(user, teams)))


def _open_prompts(user: Any, teams: Sequence[str]) -> Q:
    return ~Q(pk__in=openness.read().barred_prompts(_holders(user, teams)))


def _holders(user: Any, teams: Sequence[str]) -> list[tuple[str, str]]:
    return [*(("team", team) for team in teams), ("user", str(user.pk))]


def _budgets(user: Any, teams: Sequence[str]) -> Q:
    return Q(team_id__in=teams) | Q(key__team_id__in=teams)


def _budget_entries(user: Any, teams: Sequence[str]) -> Q:
    """Entries know their budget by its id as text."""
    return Q(budget_id__in=[str(pk) for pk in Budget.objects.filter(_budgets(user, teams)).values_list("pk", flat=True)])


def _own(user: Any, teams: Sequence[str]) -> Q:
    return Q(user=user.pk)


def rows_of_team(model: type[Model], column: str) -> None:
    """For apps further to the right: rows of `model` belong to the team that `column` names. Called when the app is made ready."""
    _RULES[model] = _of_team(column)


_RULES: dict[type[Model], Rule] = {
    Team: _of_team("pk"),
    TeamMember: _of_team("team_id"),
    ApiKey: _of_team("team_id"),
    Budget: _budgets,
    BudgetEntry: _budget_entries,
    RequestLog: _of_team("team_id"),
    OpenRequest: _of_team("team_id"),
    UsageRecord: _of_team("team_id"),
    Rollup: _of_team("team_id"),
    LabelRollup: _of_team("team_id"),
    LLMModel: _open_models,
    Route: _open_routes,
    PromptTemplate: _open_prompts,
    PersonalToken: _own,
}
