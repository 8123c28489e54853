"""The shipped roles, as data: of people over everything (Django groups of these names), and of people in one team.

A person's rights are those of the groups, and for the rows of a team those of the role in it: `access.scope` puts the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

ADMINISTRATOR: Final = "administrator"
OPERATOR: Final = "operator"
AUDITOR: Final = "auditor"
VIEWER: Final = "viewer"


class TeamRole:
    MANAGER: Final = "manager"
    MEMBER: Final = "member"
    VIEWER: Final = "viewer"


def _each(verbs: str, app: str, *models: str) -> frozenset[str]:
    return frozenset(f"{app}.{verb}_{model}" for verb in verbs.split() for model in models)


_CONFIGURATION_VIEWS = (
    _each("view", "providers", "provider", "providerkey")
    | _each("view", "models_registry", "llmmodel", "route", "prompttemplate", "price", "exchangerate")
    | _each("view", "access", "team", "teammember", "grant", "apikey", "budget")
    | _each("view", "tasks", "tasktype")
    | _each("view", "telling", "webhooksecret", "alertrule", "alertchannel")
)
_OWN_TOKENS = _each("view add change", "access", "personaltoken")
_SUMS = _each("view", "monitoring", "usagerecord", "rollup")
_RECORDS = _SUMS | _each("view", "monitoring", "requestlog", "budgetentry") | _each("view", "telling", "webhook", "alert")
_TRAIL = _each("view export", "monitoring", "auditevent")
_DOCUMENT = _each("export", "gateway_config", "configversion")
_OPERATING = (
    frozenset({"providers.test_provider", "providers.sync_provider", "providers.change_provider"})
    | _each("change", "providers", "providerkey")
    | _each("add change", "models_registry", "llmmodel", "route", "prompttemplate")
    | _each("view change", "tasks", "task")
    | _each("add change", "tasks", "tasktype")
    | _each("replay", "telling", "webhook")
    | _each("test", "telling", "alertchannel")
)
_ADMINISTERING = (
    _each("add change delete", "providers", "provider", "providerkey")
    | {"providers.rotate_providerkey"}
    | _each("add change delete", "models_registry", "llmmodel", "route", "prompttemplate")
    | _each("add", "models_registry", "price", "exchangerate")
    | _each("add change delete", "access", "team", "teammember", "grant", "apikey", "budget", "personaltoken")
    | _each("view add change", "auth", "user")
    | _each("view", "auth", "group")
    | _each("add", "tasks", "task")
    | _each("add change delete", "tasks", "tasktype")
    | _each("view", "monitoring", "auditevent")
    | _each("share", "monitoring", "savedfilter")
    | _each("add delete", "telling", "webhooksecret")
    | _each("add change delete", "telling", "alertrule", "alertchannel")
    | _each("import", "gateway_config", "configversion")
)

# Name → what it is for, and its permissions. Every later one may do less, but for the auditor, who sees what the viewer does not.
ROLES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    ADMINISTRATOR: (
        "Configures everything; makes users, but hands out no roles over everything: that is a superuser's.",
        _CONFIGURATION_VIEWS | _OWN_TOKENS | _RECORDS | _TRAIL | _DOCUMENT | _OPERATING | _ADMINISTERING,
    ),
    OPERATOR: (
        "Keeps it running: tests and syncs providers, switches them, models, routes, prompts, task types. No keys, no money, no people.",
        _CONFIGURATION_VIEWS | _OWN_TOKENS | _RECORDS | _DOCUMENT | _OPERATING,
    ),
    AUDITOR: (
        "Reads everything, people, records and the audit trail included, takes the trail away as a file, and changes nothing.",
        _CONFIGURATION_VIEWS
        | _OWN_TOKENS
        | _RECORDS
        | _TRAIL
        | _DOCUMENT
        | _each("view", "auth", "user", "group")
        | _each("view", "tasks", "task"),
    ),
    VIEWER: ("Reads the configuration and what was used, but no single request.", _CONFIGURATION_VIEWS | _OWN_TOKENS | _SUMS),
}

_TEAM_VIEWS = (
    _each("view", "access", "team", "teammember", "apikey", "budget")
    | _each("view", "models_registry", "llmmodel", "route", "prompttemplate")
    | _each("view", "telling", "webhooksecret")
    | _SUMS
    | _OWN_TOKENS
)
_TEAM_RECORDS = _each("view", "monitoring", "requestlog", "budgetentry") | _each("view", "telling", "webhook")

# Name → its label, and its permissions over the rows of the team.
TEAM_ROLES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    TeamRole.MANAGER: (
        "Manager",
        _TEAM_VIEWS
        | _TEAM_RECORDS
        | _each("add change delete", "access", "apikey", "teammember")
        | _each("replay", "telling", "webhook")
        | _each("add delete", "telling", "webhooksecret"),
    ),
    TeamRole.MEMBER: ("Member", _TEAM_VIEWS | _TEAM_RECORDS | _each("add", "access", "apikey")),
    TeamRole.VIEWER: ("Viewer", _TEAM_VIEWS),
}
# What any role in a team can allow: for everything else no team needs to be asked for.
TEAM_PERMISSIONS: Final = frozenset[str]().union(*(permissions for _, permissions in TEAM_ROLES.values()))


def sync_groups(using: str = "default", **signal: Any) -> None:
    """Makes the shipped roles what they are here; other groups, and who is in which, stay. Receiver of `post_migrate`."""
    from django.contrib.auth.models import Group, Permission
    from django.db import connections

    tables = set(connections[using].introspection.table_names())
    if not {Group._meta.db_table, Permission._meta.db_table} <= tables:  # only some apps have been migrated yet
        return
    rows = Permission.objects.using(using).select_related("content_type")
    found = {f"{row.content_type.app_label}.{row.codename}": row for row in rows}
    for name, (_, permissions) in ROLES.items():
        group, _made = Group.objects.using(using).get_or_create(name=name)
        group.permissions.set([found[permission] for permission in permissions if permission in found])
