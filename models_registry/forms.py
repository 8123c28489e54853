"""The form that gives a model its price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSplitDateTimeWidget, UnfoldAdminTextInputWidget

from core.money import MAX_PRICE_PER_MILLION
from models_registry.models import CURRENCY_VALIDATOR
from models_registry.services import ALL_BUCKETS


def _per_million(label: str, help_text: str, required: bool) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        required=required,
        min_value=Decimal(0),
        max_value=MAX_PRICE_PER_MILLION,
        max_digits=13,
        decimal_places=6,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any", "placeholder": "0.00"}),
    )


class SetPriceForm(forms.Form):
    """Plain decimals per million tokens, as vendors print them."""

    currency = forms.CharField(
        initial="USD",
        max_length=3,
        validators=[CURRENCY_VALIDATOR],
        widget=UnfoldAdminTextInputWidget,
        help_text="Three capital letters.",
    )
    input = _per_million("Input, per million tokens", "For example 2.50", required=True)
    cached_input = _per_million(
        "Cached input, per million tokens", "Read from the vendor's cache. Empty: the same as input.", required=False
    )
    cache_write = _per_million(
        "Cache write, per million tokens", "Written to the vendor's cache. Empty: the same as input.", required=False
    )
    output = _per_million("Output, per million tokens", "For example 10.00", required=True)
    cache_write_1h = _per_million("Cache write for an hour, per million tokens", "Empty: the same as cache write.", required=False)
    reasoning = _per_million("Reasoning, per million tokens", "Empty: the same as output.", required=False)
    input_audio = _per_million("Audio input, per million tokens", "Empty: the same as input.", required=False)
    input_image = _per_million("Image input, per million tokens", "Empty: the same as input.", required=False)
    output_audio = _per_million("Audio output, per million tokens", "Empty: the same as output.", required=False)
    output_image = _per_million("Image output, per million tokens", "Empty: the same as output.", required=False)
    valid_from = forms.SplitDateTimeField(
        label="In force from",
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget,
        help_text="Empty: from now on. The price before it ends at that moment; nothing that was already charged changes.",
    )
    source = forms.CharField(
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text="Where the figures come from, e.g. the address of the vendor's price page.",
    )

    def arguments(self) -> dict[str, Any]:
        """For models_registry.services.set_price; what is left empty is left to it."""
        return {
            "currency": self.cleaned_data["currency"],
            "per_million": {name: self.cleaned_data[name] for name in ALL_BUCKETS if self.cleaned_data[name] is not None},
            "valid_from": self.cleaned_data["valid_from"],
            "source": self.cleaned_data["source"],
        }
