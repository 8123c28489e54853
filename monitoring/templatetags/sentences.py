"""`{{ sentence|told }}`: in the language of whoever reads the page."""

from __future__ import annotations

from typing import Any

from django import template

from monitoring.sentences import told as in_their_language

register = template.Library()


@register.filter
def told(value: Any) -> Any:
    return in_their_language(value) if isinstance(value, str) else value
