"""The admin's theme: its name, its styles, and the sidebar, of which everybody sees what they may open."""

from __future__ import annotations

from typing import Any, Final

from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _


def _entry(title: Promise, icon: str, model: str) -> dict[str, object]:
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
    "SITE_SUBHEADER": _("LLM control plane"),
    "SITE_SYMBOL": "hub",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_LANGUAGES": True,
    "ENVIRONMENT": "llmcontrol.dashboard.environment",
    "DASHBOARD_CALLBACK": "llmcontrol.dashboard.dashboard",
    "LOGIN": {"form": "access.login.LoginForm"},
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("llmcontrol/favicon.svg")}],
    "STYLES": [lambda request: static("llmcontrol/admin.css")],
    "SIDEBAR": {
        "navigation": [
            {
                "items": [
                    {"title": _("Overview"), "icon": "monitoring", "link": reverse_lazy("admin:index")},
                    {
                        "title": _("Costs"),
                        "icon": "payments",
                        "link": reverse_lazy("costs"),
                        "permission": lambda request: request.user.has_perm("monitoring.view_usagerecord"),
                    },
                    {
                        "title": _("Playground"),
                        "icon": "forum",
                        "link": reverse_lazy("playground"),
                        "permission": "llmcontrol.playground.may_open",
                    },
                    {
                        "title": _("Configuration"),
                        "icon": "swap_horiz",
                        "link": reverse_lazy("configuration"),
                        "permission": "llmcontrol.portable.page.may_open",
                    },
                ]
            },
            {
                "title": _("Vendors"),
                "items": [
                    _entry(_("Providers"), "cloud", "providers.provider"),
                    {
                        "title": _("Stored secrets"),
                        "icon": "encrypted",
                        "link": reverse_lazy("decrypt-health"),
                        "permission": lambda request: request.user.has_perm("providers.view_providerkey"),
                    },
                ],
            },
            {
                "title": _("Models & prices"),
                "items": [
                    _entry(_("Models"), "neurology", "models_registry.llmmodel"),
                    _entry(_("Routes"), "alt_route", "models_registry.route"),
                    _entry(_("Prompts"), "edit_note", "models_registry.prompttemplate"),
                    _entry(_("Task types"), "category", "tasks.tasktype"),
                    _entry(_("Exchange rates"), "currency_exchange", "models_registry.exchangerate"),
                ],
            },
            {
                "title": _("Callers"),
                "items": [
                    _entry(_("Teams"), "groups", "access.team"),
                    _entry(_("Members"), "group_add", "access.teammember"),
                    _entry(_("Grants"), "key_vertical", "access.grant"),
                    _entry(_("API keys"), "key", "access.apikey"),
                    _entry(_("Budgets"), "savings", "access.budget"),
                    _entry(_("Webhook secrets"), "signature", "telling.webhooksecret"),
                ],
            },
            {
                "title": _("What happened"),
                "items": [
                    _entry(_("Tasks"), "checklist", "tasks.task"),
                    _entry(_("Webhooks"), "webhook", "telling.webhook"),
                    _entry(_("Requests"), "receipt_long", "monitoring.requestlog"),
                    _entry(_("Usage"), "toll", "monitoring.usagerecord"),
                    _entry(_("Budget entries"), "receipt", "monitoring.budgetentry"),
                    _entry(_("Audit trail"), "policy", "monitoring.auditevent"),
                ],
            },
            {
                "title": _("Alerts"),
                "items": [
                    _entry(_("Alerts"), "notifications_active", "telling.alert"),
                    _entry(_("Rules"), "rule", "telling.alertrule"),
                    _entry(_("Channels"), "campaign", "telling.alertchannel"),
                ],
            },
            {
                "title": _("People"),
                "items": [
                    _entry(_("Users"), "person", "auth.user"),
                    _entry(_("Groups"), "shield_person", "auth.group"),
                    _entry(_("Personal tokens"), "badge", "access.personaltoken"),
                ],
            },
        ]
    },
}
