"""Who may see which event: an event has topics, a listener has topics, and one in common is enough. Decided by `access.scope`."""

from __future__ import annotations

from typing import Any

from access import scope
from core.config import CallerSpec

ALL_TASKS, ALL_PROVIDERS, ALL_ALERTS, ALL_RULE_ALERTS = "task.all", "provider.all", "alert.all", "alert.rule.all"


def of_key(caller: CallerSpec) -> frozenset[str]:
    """A program hears of its own tasks, and of budgets of its own."""
    tasks = {f"task.key.{caller.key_id}"} if "tasks" in caller.scopes else set()
    return frozenset({f"alert.key.{caller.key_id}", *tasks})


def of_person(user: Any) -> frozenset[str]:
    found = {f"task.user.{user.pk}"}
    for permission, topic in (
        ("tasks.view_task", ALL_TASKS),
        ("providers.view_provider", ALL_PROVIDERS),
        ("access.view_budget", ALL_ALERTS),
        ("telling.view_alert", ALL_RULE_ALERTS),
    ):
        if user.has_perm(permission):
            found.add(topic)
    found |= {f"alert.team.{team}" for team in scope.teams_with(user, "access.view_budget")}
    return frozenset(found)
