"""The form of a type of tasks."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from models_registry.models import PromptTemplate
from tasks.models import TaskType


class _SchemaField(forms.JSONField):
    """Written as people read it."""

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict | list) else super().prepare_value(value)


class TaskTypeForm(forms.ModelForm):
    prompt = forms.ChoiceField(label=_("Prompt"), widget=UnfoldAdminSelectWidget, help_text=_("Its variables are the data of the task."))
    result_schema = _SchemaField(
        label=_("Schema of the result"),
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 14}),
        help_text=_('JSON schema that every result follows: {"type": "object", "properties": {…}, "required": […]}. Empty: a text.'),
    )

    class Meta:
        model = TaskType
        fields = "__all__"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = list(PromptTemplate.objects.values_list("name", flat=True))
        if self.instance.prompt and self.instance.prompt not in names:
            names.append(self.instance.prompt)  # it is gone, which saving says
        if "prompt" in self.fields:
            self.fields["prompt"].choices = [("", gettext("Choose a prompt")), *((name, name) for name in names)]  # type: ignore[attr-defined]
