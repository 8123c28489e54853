"""How long a text the admin's lists are searched for."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.admin.views.main import SEARCH_VAR, ChangeListSearchForm

MAX_SEARCH_CHARACTERS = 200


class BoundedSearch(ChangeListSearchForm):
    """The database compares each word of it with each column, in each row."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[SEARCH_VAR] = forms.CharField(required=False, strip=False, max_length=MAX_SEARCH_CHARACTERS)
