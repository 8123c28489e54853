"""The admin's forms for prompt templates: the editor, and the values for a preview."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from django import forms
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from models_registry import prompt_script
from models_registry.models import PromptTemplate, PromptVersion
from models_registry.prompt_services import Wording, latest_of
from models_registry.prompts import MAX_INPUT_TOKENS, MAX_TEMPLATE_CHARACTERS
from monitoring.pages import RefusableForm

_MAX_SCRIPT = 2 * MAX_TEMPLATE_CHARACTERS
_MAX_SAMPLE = 500_000
_SAMPLES: dict[str, Any] = {
    "text": "…",
    "number": 1,
    "context": ["The first text that was found.", "The second."],
    "history": [{"role": "user", "content": "Good morning."}, {"role": "assistant", "content": "Good morning!"}],
}


def _area(rows: int) -> UnfoldAdminTextareaWidget:
    return UnfoldAdminTextareaWidget(attrs={"rows": rows, "spellcheck": "false", "class": "llmc-script"})


class JsonText(forms.CharField):
    """JSON, indented."""

    def __init__(self, kind: type, meaning: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kind, self._meaning = kind, meaning

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        if "\\u0000" in text:
            raise forms.ValidationError("NUL (\\u0000) cannot be stored: leave it out.")
        try:
            found = msgspec.json.decode(text or msgspec.json.encode(self._kind()))
        except (msgspec.DecodeError, RecursionError) as refused:
            raise forms.ValidationError(f"This is not JSON: {refused}.") from None
        if not isinstance(found, self._kind):
            raise forms.ValidationError(f"Write {self._meaning}.")
        return found


class LabelsField(forms.CharField):
    """A label a line: `production = 3`."""

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(f"{label} = {number}" for label, number in value.items()) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        found: dict[str, int] = {}
        for line in (super().to_python(value) or "").splitlines():
            label, _, number = (part.strip() for part in line.partition("="))
            if label in found or not (number.isascii() and number.isdecimal() and len(number) < 10):
                raise forms.ValidationError(f"{line[:60]!r} cannot be read: write a label a line, each once, such as production = 3.")
            found[label] = int(number)
        return found


class PromptForm(RefusableForm, forms.ModelForm):
    labels = LabelsField(
        label=_("Labels"),
        required=False,
        widget=_area(2),
        help_text=_("Words for versions, one a line, such as production = 3. Where a request names none, production is meant."),
    )
    messages = forms.CharField(
        label=_("Messages"),
        strip=False,
        max_length=_MAX_SCRIPT,
        widget=_area(18),
        help_text=_(
            "A line [system], [user] or [assistant] begins a message, [history: name] stands for earlier messages. {{name}} is a "
            'variable, {{"{{"}} two braces. A change makes a new version.'
        ),
    )
    variables = JsonText(
        list,
        "a list of variables",
        label=_("Variables"),
        required=False,
        widget=_area(10),
        help_text=_(
            'Each variable that is used: {"name", "type": text, number, history or context, "required", "default", "max_characters", '
            '"description"}.'
        ),
    )
    max_input_tokens = forms.IntegerField(
        label=_("Max input tokens"),
        required=False,
        min_value=1,
        max_value=MAX_INPUT_TOKENS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=_("History and context are shortened until all of it fits. Empty: into the model's window."),
    )
    note = forms.CharField(
        label=_("Note"), required=False, max_length=300, widget=UnfoldAdminTextInputWidget, help_text=_("What the new version changes.")
    )

    class Meta:
        model = PromptTemplate
        fields = ("name", "description", "is_active", "visibility")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._latest = latest_of(self.instance)
        self.initial["labels"] = self.instance.labels
        if self._latest is not None:
            self.initial["messages"] = prompt_script.written(self._latest.messages)
            self.initial["variables"] = self._latest.variables
            self.initial["max_input_tokens"] = self._latest.max_input_tokens
        else:
            self.initial["messages"], self.initial["variables"] = "[system]\n\n[user]\n{{question}}", [{"name": "question"}]

    def clean_messages(self) -> Any:
        """What was left as it was stays exactly as it is, whatever a browser does to line ends."""
        text: str = self.cleaned_data["messages"]
        if self._latest is not None and _lines(text) == _lines(str(self.initial["messages"])):
            return self._latest.messages
        try:
            return prompt_script.read(text)
        except ValueError as refused:
            raise forms.ValidationError(str(refused)) from None

    def wording(self) -> Wording:
        return Wording(*(self.cleaned_data[name] for name in ("messages", "variables", "max_input_tokens")))


class PreviewForm(forms.Form):
    version = forms.TypedChoiceField(label=_("Version"), coerce=int, widget=UnfoldAdminSelectWidget)
    variables = JsonText(
        dict, 'an object, such as {"question": "…"}', label=_("Variables"), max_length=_MAX_SAMPLE, required=False, widget=_area(12)
    )
    room_tokens = forms.IntegerField(
        label=_("Tokens there is room for"),
        required=False,
        min_value=1,
        max_value=MAX_INPUT_TOKENS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=_("As a model's window would leave. Empty: no limit but the version's own."),
    )

    def __init__(self, versions: list[PromptVersion], chosen: PromptVersion, data: Any = None) -> None:
        super().__init__(data, initial={"version": chosen.number, "variables": sample(chosen)})
        field = self.fields["version"]
        assert isinstance(field, forms.TypedChoiceField)
        field.choices = [(version.number, str(version.number)) for version in versions]


def sample(version: PromptVersion) -> dict[str, Any]:
    """Something for each variable, to begin with."""
    return {name: variable.default or _SAMPLES[variable.type] for name, variable in version.spec().variables.items()}


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")
