"""The form that gives a model its price, and the one of a route."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from core.config import DEFAULT_CURRENCY
from core.money import MAX_PRICE_PER_MILLION, rate_from_decimal
from models_registry.models import MAX_PRICED_TOKENS, ExchangeRate, Price, Route, validate_currency
from models_registry.services import ALL_BUCKETS

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


_NUMBER = _("Write a number with a point and without commas, e.g. 2.50.")


def _per_million(label: StrOrPromise, help_text: StrOrPromise, required: bool) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        required=required,
        error_messages={"invalid": _NUMBER},
        min_value=Decimal(0),
        max_value=MAX_PRICE_PER_MILLION,
        max_digits=13,
        decimal_places=6,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any", "placeholder": "0.00"}),
    )


class SetPriceForm(forms.Form):
    """Plain decimals per million tokens, as vendors print them."""

    currency = forms.CharField(
        label=_("Currency"),
        initial=DEFAULT_CURRENCY,
        max_length=3,
        validators=[validate_currency],
        widget=UnfoldAdminTextInputWidget,
        help_text=_("Three capital letters."),
    )
    input = _per_million(_("Input, per million tokens"), _("For example 2.50"), required=True)
    cached_input = _per_million(
        _("Cached input, per million tokens"), _("Read from the vendor's cache. Empty: the same as input."), required=False
    )
    cache_write = _per_million(
        _("Cache write, per million tokens"), _("Written to the vendor's cache. Empty: the same as input."), required=False
    )
    output = _per_million(_("Output, per million tokens"), _("For example 10.00"), required=True)
    cache_write_1h = _per_million(_("Cache write for an hour, per million tokens"), _("Empty: the same as cache write."), required=False)
    reasoning = _per_million(_("Reasoning, per million tokens"), _("Empty: the same as output."), required=False)
    input_audio = _per_million(_("Audio input, per million tokens"), _("Empty: the same as input."), required=False)
    input_image = _per_million(_("Image input, per million tokens"), _("Empty: the same as input."), required=False)
    output_audio = _per_million(_("Audio output, per million tokens"), _("Empty: the same as output."), required=False)
    output_image = _per_million(_("Image output, per million tokens"), _("Empty: the same as output."), required=False)
    service_tier = forms.ChoiceField(
        label=_("Service tier"),
        choices=lambda: Price._meta.get_field("service_tier").flatchoices,
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text=_("As the vendor calls it. Any: for every tier without a price of its own."),
    )
    min_input_tokens = forms.IntegerField(
        label=_("For requests from this size on"),
        required=False,
        min_value=0,
        max_value=MAX_PRICED_TOKENS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=_("Tokens of input, cached ones among them; the price is then that of all its tokens. Empty: of any size."),
    )
    valid_from = forms.SplitDateTimeField(
        label=_("In force from"),
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget,
        help_text=_("Empty: from now on. The price before it ends at that moment; nothing that was already charged changes."),
    )
    source = forms.CharField(
        label=_("Source"),
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text=_("Where the figures come from, e.g. the address of the vendor's price page."),
    )

    def arguments(self) -> dict[str, Any]:
        """For models_registry.services.set_price; what is left empty is left to it."""
        return {
            "currency": self.cleaned_data["currency"],
            "per_million": {name: self.cleaned_data[name] for name in ALL_BUCKETS if self.cleaned_data[name] is not None},
            "valid_from": self.cleaned_data["valid_from"],
            "source": self.cleaned_data["source"],
            "service_tier": self.cleaned_data["service_tier"],
            "min_input_tokens": self.cleaned_data["min_input_tokens"] or 0,
        }


class ExchangeRateForm(forms.ModelForm):
    """The rate itself as a plain decimal; the row judges the rest."""

    rate = forms.DecimalField(
        label=_("Rate"),
        help_text=_("Units of the second currency for one of the first, e.g. 0.1404; at most ten decimals."),
        error_messages={"invalid": _NUMBER},
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
    )

    class Meta:
        model = ExchangeRate
        fields = ("base", "quote", "rate", "valid_from", "source")

    def clean_rate(self) -> Decimal:
        rate: Decimal = self.cleaned_data["rate"]
        try:
            self.instance.rate_e10 = rate_from_decimal(rate)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
        return rate


class AliasesField(forms.CharField):
    """A list of aliases, one a line."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 4})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in (super().to_python(value) or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(initial != self.to_python(data))


class WeightsField(forms.CharField):
    """Aliases with a weight, one a line: `gpt-4o = 3`."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 4})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(f"{alias} = {weight}" for alias, weight in value.items()) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        weights: dict[str, int] = {}
        for line in (super().to_python(value) or "").splitlines():
            alias, sign, weight = (part.strip() for part in line.partition("="))
            if not alias and not sign:
                continue
            if not (alias and weight.isascii() and weight.isdecimal() and len(weight) < 9):
                raise forms.ValidationError(f"{line.strip()[:80]!r}: write an alias, = and a whole number.")
            if alias in weights:
                raise forms.ValidationError(f"{alias[:80]!r} has two weights.")
            weights[alias] = int(weight)
        return weights

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(initial != self.to_python(data))
        except forms.ValidationError:
            return True


class RouteForm(forms.ModelForm):
    """The row itself judges the chain; an empty one too."""

    targets = AliasesField(
        label=_("Models"),
        required=False,
        help_text=_("Aliases, one a line. Several models of one alias are tried by their priority."),
    )
    weights = WeightsField(
        label=_("Weights"),
        required=False,
        help_text=_("One a line, e.g. gpt-4o = 3. Only for “By weight”; without a line, a model's weight is 1."),
    )
    fallbacks = AliasesField(
        label=_("Fallback models"),
        required=False,
        help_text=_("Aliases, one a line, tried one after the other when all of the above failed."),
    )
    task_types = AliasesField(
        label=_("Task types"),
        required=False,
        help_text=_("One a line. Requests with the model “auto” and one of these task types come here, and queued tasks of it."),
    )

    class Meta:
        model = Route
        fields = (
            *("alias", "description", "is_active", "visibility", "task_types", "targets", "strategy", "weights", "fallbacks"),
            *("degrade_to", "fixed_answer", "cache_ttl_s"),
        )
