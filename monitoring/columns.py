"""Columns of the admin's lists, and the words that are shown in colour there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple

from django.utils.translation import gettext
from unfold import decorators


class Word(NamedTuple):
    """A cell with a colour: `value` tells which, `text` is read."""

    value: str
    text: str

    def __str__(self) -> str:
        return self.text


class _Colours(dict[str, str]):
    """A value without a colour of its own has the plain one."""

    def __missing__(self, value: str) -> str:
        return "default"


def display(*, label: Mapping[str, str] | None = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """The theme's decorator. A column with a `label` (value → colour) returns one of its values, which is shown in the reader's
    language, or a value and the text to show."""
    if label is None:
        return decorators.display(**options)

    def decorator(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def worded(*args: Any) -> Word:
            found = function(*args)
            return Word(found, gettext(found)) if isinstance(found, str) else Word(*found)

        return decorators.display(label=_Colours(label), **options)(worded)

    return decorator
