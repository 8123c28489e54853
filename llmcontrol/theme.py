"""The admin's theme: its name, its styles, and the sidebar, of which everybody sees what they may open."""

from __future__ import annotations

from typing import Any, Final

from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.module_loading import import_string


def _entry(title: str, icon: str, model: str) -> dict[str, object]:
    """A line of the admin's sidebar, for those who may view `model` (app_label.model_name)."""
    app, name = model.split(".")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_changelist"),
        "permission": lambda request: import_string("django.contrib.admin.site").shows(request, app, name),
    }


UNFOLD: Final[dict[str, Any]] = {
    "SITE_TITLE": "llmcontrol",
    "SITE_HEADER": "llmcontrol",
    "SITE_SUBHEADER": "LLM control plane",
    "SITE_SYMBOL": "hub",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "llmcontrol.dashboard.environment",
    "DASHBOARD_CALLBACK": "llmcontrol.dashboard.dashboard",
    "LOGIN": {"form": "access.login.LoginForm"},
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("llmcontrol/favicon.svg")}],
    "STYLES": [lambda request: static("llmcontrol/admin.css")],
    "SIDEBAR": {
        "navigation": [
            {
                "items": [
                    {"title": "Overview", "icon": "monitoring", "link": reverse_lazy("admin:index")},
                    {
                        "title": "Costs",
                        "icon": "payments",
                        "link": reverse_lazy("costs"),
                        "permission": lambda request: request.user.has_perm("monitoring.view_usagerecord"),
                    },
                    {
                        "title": "Playground",
                        "icon": "forum",
                        "link": reverse_lazy("playground"),
                        "permission": "llmcontrol.playground.may_open",
                    },
                ]
            },
            {
                "title": "Vendors",
                "items": [
                    _entry("Providers", "cloud", "providers.provider"),
                    {
                        "title": "Stored secrets",
                        "icon": "encrypted",
                        "link": reverse_lazy("decrypt-health"),
                        "permission": lambda request: request.user.has_perm("providers.view_providerkey"),
                    },
                ],
            },
            {
                "title": "Models & prices",
                "items": [
                    _entry("Models", "neurology", "models_registry.llmmodel"),
                    _entry("Routes", "alt_route", "models_registry.route"),
                    _entry("Prompts", "edit_note", "models_registry.prompttemplate"),
                    _entry("Task types", "category", "tasks.tasktype"),
                    _entry("Exchange rates", "currency_exchange", "models_registry.exchangerate"),
                ],
            },
            {
                "title": "Callers",
                "items": [
                    _entry("Teams", "groups", "access.team"),
                    _entry("Members", "group_add", "access.teammember"),
                    _entry("Grants", "key_vertical", "access.grant"),
                    _entry("API keys", "key", "access.apikey"),
                    _entry("Budgets", "savings", "access.budget"),
                    _entry("Webhook secrets", "signature", "telling.webhooksecret"),
                ],
            },
            {
                "title": "What happened",
                "items": [
                    _entry("Tasks", "checklist", "tasks.task"),
                    _entry("Webhooks", "webhook", "telling.webhook"),
                    _entry("Requests", "receipt_long", "monitoring.requestlog"),
                    _entry("Usage", "toll", "monitoring.usagerecord"),
                    _entry("Budget entries", "receipt", "monitoring.budgetentry"),
                    _entry("Audit trail", "policy", "monitoring.auditevent"),
                ],
            },
            {
                "title": "Alerts",
                "items": [
                    _entry("Alerts", "notifications_active", "telling.alert"),
                    _entry("Rules", "rule", "telling.alertrule"),
                    _entry("Channels", "campaign", "telling.alertchannel"),
                ],
            },
            {
                "title": "People",
                "items": [
                    _entry("Users", "person", "auth.user"),
                    _entry("Groups", "shield_person", "auth.group"),
                    _entry("Personal tokens", "badge", "access.personaltoken"),
                ],
            },
        ]
    },
}
