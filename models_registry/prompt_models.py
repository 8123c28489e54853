"""Prompt templates and their versions, as rows."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models

from core.prompts import PromptSpec, PromptVersionSpec
from models_registry import prompts
from providers.models import visibility_field

PROMPT_NAME_VALIDATOR = RegexValidator(prompts.TEMPLATE_NAME, "Use letters, digits and . _ : / -; start with a letter or digit.")


class PromptTemplate(models.Model):
    """A prompt that callers name instead of sending it. Its texts are in its versions; labels say which of them is meant by a word."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(
        max_length=100, unique=True, validators=[PROMPT_NAME_VALIDATOR], help_text="What callers write as the prompt's id."
    )
    description = models.CharField(max_length=500, blank=True, help_text="For people: what the prompt is for.")
    is_active = models.BooleanField("active", default=True, help_text="Off: to callers it does not exist.")
    visibility = visibility_field()
    labels = models.JSONField(
        default=dict,
        blank=True,
        help_text='Words for versions, e.g. {"production": 3, "staging": 4}. Where a request names none, production is meant.',
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "prompt"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def spec(self) -> PromptSpec:
        """Reads all versions. Raises ValueError where a column holds what no form would let in."""
        return prompts.read_template(str(self.pk), self.name, self.labels, (version.spec() for version in self.versions.all()))

    def clean(self) -> None:
        """Runs for admin, REST and shell alike. Raises ValidationError by field."""
        try:
            labels = prompts.read_labels(self.labels)
        except prompts.TemplateRefused as refused:
            raise ValidationError({refused.field: str(refused)}) from None
        try:
            uuid.UUID(self.name)
        except ValueError:
            pass
        else:
            raise ValidationError({"name": "A name must not look like an id: write a word."})
        numbers = set(self.versions.values_list("number", flat=True)) if not self._state.adding else set[int]()
        if missing := sorted(label for label, number in labels.items() if number not in numbers):
            raise ValidationError({"labels": f"There is no version {labels[missing[0]]}, to which {missing[0]!r} is to point."})


class PromptVersion(models.Model):
    """One wording of a template. Never edited: a change is another version. What may stand in it: `models_registry.prompts`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    template = models.ForeignKey(PromptTemplate, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    messages = models.JSONField()
    variables = models.JSONField(default=list, blank=True)
    max_input_tokens = models.PositiveIntegerField(null=True, blank=True)
    note = models.CharField(max_length=300, blank=True)
    created_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "prompt version"
        ordering = ["-number"]
        # Who may see and change its template may do so with these.
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["template", "number"], name="one_prompt_version_of_a_number")]

    def __str__(self) -> str:
        return f"{self.template} {self.number}"

    def spec(self) -> PromptVersionSpec:
        """Raises ValueError."""
        return prompts.read_version(self.number, self.messages, self.variables, self.max_input_tokens)

    def clean(self) -> None:
        """Raises ValidationError by field."""
        try:
            self.spec()
        except prompts.TemplateRefused as refused:
            raise ValidationError({refused.field: str(refused)}) from None

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValidationError for a row that is there already."""
        if not self._state.adding:
            raise ValidationError("A version is never edited: a change is another version.")
        super().save(*args, **kwargs)
