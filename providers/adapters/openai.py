"""OpenAI itself: the compatible wire, and the two headers that name who pays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from providers.adapters.base import FormField
from providers.adapters.openai_compatible import OpenAICompatible


class OpenAI(OpenAICompatible):
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("api_key", "API key", "Starts with sk-.", required=True, secret=True),
        FormField("organization", "Organization", "Starts with org-. Only for keys that belong to several organizations."),
        FormField("project", "Project", "Starts with proj_. Only for keys that reach several projects."),
    )

    @staticmethod
    def extra_headers(options: Mapping[str, Any]) -> dict[str, str]:
        names = {"organization": "OpenAI-Organization", "project": "OpenAI-Project"}
        return {header: str(options[option]) for option, header in names.items() if options.get(option)}
