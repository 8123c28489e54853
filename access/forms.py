"""Forms for keys and tokens: what goes in. What comes out (the credential, once) is a page of `access.admin`."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectMultipleWidget, UnfoldAdminTextareaWidget

from access import scope
from access.models import ApiKey, PersonalToken, Team
from access.services import DEFAULT_SCOPES, SCOPES
from models_registry.models import LLMModel, Route
from monitoring.pages import RefusableForm

_MEANINGS = {
    "chat": _("Chat and text generation"),
    "embeddings": _("Embeddings"),
    "tasks": _("Tasks"),
    "models": _("Listing models"),
    "usage": _("Its own usage"),
}


class Networks(forms.CharField):
    """One network a line. The row keeps a list, or None for anywhere."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str] | None:  # type: ignore[override]
        return (value if isinstance(value, list) else str(value or "").replace(",", " ").split()) or None


class TeamForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"),
        choices=[(scope, _MEANINGS[scope]) for scope in SCOPES],
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=_("The most that a key of the team may be used for. Nothing chosen: everything."),
    )

    class Meta:
        model = Team
        fields = (
            *("name", "is_active", "requests_per_minute", "tokens_per_minute", "max_concurrency"),
            *("scopes", "max_key_days", "price_adjustment_bp"),
        )

    def clean_scopes(self) -> list[str] | None:
        return self.cleaned_data["scopes"] or None


class ApiKeyForm(RefusableForm, forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"),
        choices=[(scope, _MEANINGS[scope]) for scope in SCOPES],
        initial=list(DEFAULT_SCOPES),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        error_messages={"required": "Choose at least one: a key without a scope can do nothing."},
        help_text=_("What the key may be used for."),
    )
    allowed_models = forms.MultipleChoiceField(
        label=_("Allowed models"),
        required=False,
        widget=UnfoldAdminSelectMultipleWidget,
        help_text=_("The only models and routes this key may call. Nothing chosen: all that are open to its team."),
    )
    source_networks = Networks(
        label=_("Source networks"),
        required=False,
        help_text=_("The only networks this key is accepted from, e.g. 10.1.0.0/16, one a line. Empty: anywhere."),
    )
    giver: Any = None

    class Meta:
        model = ApiKey
        fields = (
            *("name", "team", "scopes", "allowed_models", "source_networks", "store_bodies"),
            *("requests_per_minute", "tokens_per_minute", "max_concurrency", "expires_at"),
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields.get("allowed_models")
        if isinstance(field, forms.MultipleChoiceField):
            offered = _aliases(self.giver)
            # An alias that is no longer offered stays choosable, so that saving does not silently widen or narrow the key.
            field.choices = [(alias, alias) for alias in sorted(offered | set(self.instance.allowed_models or ()))]

    def clean_allowed_models(self) -> list[str] | None:
        return self.cleaned_data["allowed_models"] or None


def _aliases(giver: Any) -> set[str]:
    """Names of models and routes: all for those who make keys for every team, else those that they see."""
    found: set[str] = set()
    for rows in (LLMModel.objects.all(), Route.objects.all()):
        seen = rows if giver is None or giver.has_perm("access.add_apikey") else scope.visible(giver, rows)
        found.update(seen.order_by().values_list("alias", flat=True))
    return found


class PersonalTokenForm(RefusableForm, forms.ModelForm):
    class Meta:
        model = PersonalToken
        fields = ("name", "user", "expires_at")
