"""The labels of our models in the language of whoever reads them.

Models say what they are in plain English. Here, once all of them are loaded, their names, the names and help texts of their fields and
the words for their choices become texts that are looked up when they are drawn. Migrations and the API's schema see the English.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.contrib import admin
from django.db.models import Field, Model
from django.utils.choices import CallableChoiceIterator
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy


def our_apps() -> list[AppConfig]:
    return [app for app in apps.get_app_configs() if (settings.BASE_DIR / app.name.partition(".")[0]).is_dir()]


def our_models() -> list[type[Model]]:
    return [model for app in our_apps() for model in app.get_models()]


def shown_models() -> list[type[Model]]:
    """Ours that have a page in the admin, or a table on the page of another."""
    site = admin.site._registry
    found = {*site, *(inline.model for row in site.values() for inline in getattr(row, "inlines", ()))}
    return [model for model in our_models() if model in found]


def fields_of(model: type[Model]) -> Iterator[Field[Any, Any]]:
    yield from (*model._meta.local_fields, *model._meta.local_many_to_many)


def translate() -> None:
    for app in our_apps():
        app.verbose_name = _later(app.verbose_name)
    for model in our_models():
        options = model._meta
        # Where a model does not say its plural, Django would add an "s" to the singular of whatever language.
        options.verbose_name_plural = _later(str(options.verbose_name_plural))
        options.verbose_name = _later(options.verbose_name)
        for field in fields_of(model):
            field.verbose_name, field.help_text = _later(field.verbose_name), _later(field.help_text)
            # A function stays what migrations name, and looks its labels up itself.
            if field.choices and not isinstance(field.choices, CallableChoiceIterator):
                field.choices = [(value, _later(label)) for value, label in field.choices]


def _later(text: Any) -> Any:
    return gettext_lazy(text) if isinstance(text, str) and text and not isinstance(text, Promise) else text
