"""The forms of the provider pages. What is asked for beyond a name and an address comes from the adapter's declaration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from monitoring.pages import RefusableForm
from providers.adapters import registry
from providers.adapters.base import FormField
from providers.models import Provider, ProviderKey
from providers.services import MAX_SECRET_CHARACTERS, TESTABLE

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

OPTION_PREFIX = "option_"


class SecretLinesWidget(UnfoldAdminTextareaWidget):
    """Takes secrets and never gives them back: not on an error, not on a second look."""

    def __init__(self) -> None:
        super().__init__({"rows": 3, "autocomplete": "off", "spellcheck": "false", "autocapitalize": "off", "class": "llmc-secret"})

    def format_value(self, value: Any) -> str:
        return ""


def option_fields() -> dict[str, tuple[FormField, list[str]]]:
    """Every declared option that is no secret and no column → (its declaration, the provider types that have it).

    By the option's name; where two types mean different things by one name, the later type's own stands before it.
    """
    found: dict[str, tuple[FormField, list[str]]] = {}
    for kind, _label in registry.kinds():
        for field in registry.form(kind):
            if field.secret or field.name == "base_url":
                continue
            same = found.setdefault(field.name, (field, []))[0] == field
            found.setdefault(field.name if same else f"{kind}_{field.name}", (field, []))[1].append(kind)
    return found


def _help_for_chosen_type(general: StrOrPromise, concerns: Callable[[FormField], bool]) -> SafeString:
    """`general`, then what the chosen type's declaration says of the field; an expression that runs in the browser chooses."""
    fields = ((kind, field) for kind, _label in registry.kinds() for field in registry.form(kind))
    own = [(kind, gettext(field.help_text)) for kind, field in fields if concerns(field) and field.help_text]
    shown = format_html_join("", '<span x-show="provider_type === \'{}\'" style="display: none"> <strong>{}</strong></span>', own)
    return format_html("{}{}", general, shown)


def _kind_choices() -> Iterator[tuple[str, str]]:
    for kind, label in registry.kinds():
        address = registry.default_base_url(kind)
        # RFC 2606 keeps .invalid out of every network: such an address is none that an admin could call.
        shown = address and not str(urlsplit(address).hostname).endswith(".invalid")
        yield kind, f"{gettext(label)}: {address}" if shown else gettext(label)


class ProviderForm(RefusableForm, forms.ModelForm):
    provider_type = forms.ChoiceField(label=_("Type"), widget=UnfoldAdminSelectWidget, help_text=_("Which wire this vendor speaks."))
    new_keys = forms.CharField(
        label=_("API keys"),
        required=False,
        strip=False,
        max_length=60_000,
        widget=SecretLinesWidget,
        help_text=_("One per line. They are stored encrypted and never shown again. Local servers often need none."),
    )

    class Meta:
        model = Provider
        exclude = ("options",)
        labels = {"base_url": _("Address")}
        help_texts = {
            "base_url": _(
                "Where the API lives, e.g. https://api.openai.com/v1. Empty: the address shown beside the type. "
                "A key belongs to the host it was entered for: with another host, enter the key again."
            )
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = self.fields.get("provider_type")
        if isinstance(kind, forms.ChoiceField):
            kind.choices = list(_kind_choices())
        if not self.instance._state.adding:
            self.fields["new_keys"].label = _("New API keys")
            self.fields["new_keys"].help_text = _("One per line. They replace every key below. For a single one: More, at the top.")
        for name, concerns in (("base_url", _is_address), ("new_keys", _is_secret)):
            if name in self.fields:
                self.fields[name].help_text = _help_for_chosen_type(str(self.fields[name].help_text), concerns)
        for name, field in self._options_of(self.instance.provider_type):
            value = self.instance.options.get(field.name)
            if value is not None:
                self.initial[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def clean(self) -> dict[str, Any]:
        """Hands the options to the row, whose own `clean` runs next and judges the whole."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        kind = cleaned.get("provider_type")
        self.instance.options = {}
        for name, field in self._options_of(kind):
            text = cleaned.get(name, "")
            if field.required and name in self.fields and not text:
                self.add_error(name, f"A provider of type {kind} needs this.")
            elif text:
                self._set_option(name, field, text)
        return cleaned

    def _options_of(self, kind: str | None) -> list[tuple[str, FormField]]:
        """(name of the form's field, its declaration) of the options that this type has."""
        return [(OPTION_PREFIX + name, field) for name, (field, kinds) in option_fields().items() if kind in kinds]

    def _set_option(self, name: str, field: FormField, text: str) -> None:
        try:
            value = json.loads(text) if field.mapping else text
        except ValueError:
            value = None
        if refusal := field.refusal(value):
            self.add_error(name, refusal)
        else:
            self.instance.options[field.name] = value

    def _update_errors(self, errors: ValidationError) -> None:
        """The row knows `options` only as a whole: that goes above the form, unless a field has said it better already."""
        by_field: dict[str, Any] = dict(errors.error_dict) if hasattr(errors, "error_dict") else {NON_FIELD_ERRORS: errors.error_list}
        options = by_field.pop("options", [])
        if options and not any(name.startswith(OPTION_PREFIX) for name in self.errors):
            by_field[NON_FIELD_ERRORS] = [*by_field.get(NON_FIELD_ERRORS, []), *options]
        # Django's own hook for a row's errors; the type stubs do not know it.
        super()._update_errors(ValidationError(by_field))  # type: ignore[misc]

    def secrets(self) -> list[str]:
        """The keys that were typed in, in order, without empty lines."""
        return [line.strip() for line in self.cleaned_data.get("new_keys", "").splitlines() if line.strip()]


def provider_form() -> type[ProviderForm]:
    """ProviderForm with one field for each option that any provider type declares."""
    fields = {OPTION_PREFIX + name: _option(field) for name, (field, _) in option_fields().items()}
    return type("ProviderForm", (ProviderForm,), fields)


def _option(field: FormField) -> forms.Field:
    common: dict[str, Any] = {
        "label": gettext(field.label),
        "required": False,
        "initial": field.default,
        "help_text": escape(gettext(field.help_text)) if field.help_text else "",
    }
    if field.choices:
        unsaid = () if field.default else (("", "—"),)
        choices = ((value, gettext(label)) for value, label in field.choices)
        return forms.ChoiceField(choices=(*unsaid, *choices), widget=UnfoldAdminSelectWidget, **common)
    return forms.CharField(max_length=10_000, widget=UnfoldAdminTextInputWidget, **common)


def _is_address(field: FormField) -> bool:
    return field.name == "base_url"


def _is_secret(field: FormField) -> bool:
    return field.secret


def _secret(help_text: StrOrPromise) -> forms.CharField:
    return forms.CharField(
        label=_("New key"),
        max_length=MAX_SECRET_CHARACTERS,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text=help_text,
    )


class AddKeyForm(forms.Form):
    """One more key beside those a provider has."""

    name = forms.CharField(
        label=_("Name"),
        required=False,
        max_length=80,
        widget=UnfoldAdminTextInputWidget,
        help_text=_("To tell your keys apart, e.g. the account it is from."),
    )
    new_secret = _secret(_("It is stored encrypted and never shown again."))


class TestConnectionForm(forms.Form):
    """Which model to ask; the first in order of priority, where nothing is chosen."""

    __test__ = False  # no test case, whatever pytest makes of its name
    model = forms.ChoiceField(
        label=_("Model"), required=False, widget=UnfoldAdminSelectWidget, help_text=_("What is found is written down at this model.")
    )

    def __init__(self, provider: Provider, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = provider.models.filter(model_type__in=TESTABLE).order_by("alias").values_list("alias", flat=True)
        choices = [("", gettext("the first that is offered")), *((alias, alias) for alias in dict.fromkeys(rows))]
        self.fields["model"].choices = choices  # type: ignore[attr-defined]


class _KeyChoice(forms.ModelChoiceField):
    def label_from_instance(self, obj: ProviderKey) -> str:
        return f"{obj.name or gettext('key')} …{obj.last4}"


class RotateKeyForm(forms.Form):
    """Which key, and what it becomes."""

    key = _KeyChoice(ProviderKey.objects.none(), label=_("Key"), widget=UnfoldAdminSelectWidget, empty_label=None)
    new_secret = _secret(_("It replaces the chosen key, in every process within two seconds. It is never shown again."))

    def __init__(self, provider: Provider, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["key"].queryset = provider.keys.all()  # type: ignore[attr-defined]
