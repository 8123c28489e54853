"""Forms for keys and tokens: what goes in. What comes out (the credential, once) is a page of `access.admin`."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectMultipleWidget

from access.models import ApiKey, PersonalToken
from access.services import DEFAULT_SCOPES, SCOPES
from models_registry.models import LLMModel
from monitoring.pages import RefusableForm

_MEANINGS = {
    "chat": "Chat and text generation",
    "embeddings": "Embeddings",
    "tasks": "Tasks",
    "models": "Listing models",
    "usage": "Its own usage",
}


class ApiKeyForm(RefusableForm, forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, _MEANINGS[scope]) for scope in SCOPES],
        initial=list(DEFAULT_SCOPES),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        error_messages={"required": "Choose at least one: a key without a scope can do nothing."},
        help_text="What the key may be used for.",
    )
    allowed_models = forms.MultipleChoiceField(
        required=False,
        widget=UnfoldAdminSelectMultipleWidget,
        help_text="The only models this key may call. Nothing chosen: all of them.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "team", "scopes", "allowed_models", "requests_per_minute", "tokens_per_minute", "max_concurrency", "expires_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields.get("allowed_models")
        if isinstance(field, forms.MultipleChoiceField):
            offered = set(LLMModel.objects.order_by("alias").values_list("alias", flat=True).distinct())
            # An alias that is no longer offered stays choosable, so that saving does not silently widen or narrow the key.
            field.choices = [(alias, alias) for alias in sorted(offered | set(self.instance.allowed_models or ()))]

    def clean_allowed_models(self) -> list[str] | None:
        return self.cleaned_data["allowed_models"] or None


class PersonalTokenForm(RefusableForm, forms.ModelForm):
    class Meta:
        model = PersonalToken
        fields = ("name", "user", "expires_at")
