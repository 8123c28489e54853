"""The form of a provider is what its adapter declares: choices, objects, and help that is the chosen type's own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from providers.adapters import registry
from providers.forms import OPTION_PREFIX, option_fields
from providers.models import Provider
from tests.admin.test_providers import ADD, FIELDS, NEW_KEY

AZURE = {
    **FIELDS,
    "provider_type": "azure",
    "base_url": "https://my-resource.openai.azure.com",
    "new_keys": NEW_KEY,
    "option_style": "classic",
}


def test_choices_are_a_select_and_each_types_help_is_on_the_page(root: Client) -> None:
    page = root.get(ADD).content.decode()
    (select,) = re.findall(r'<select name="option_style".*?</select>', page, re.S)
    assert re.findall(r'value="(\w+)"', select) == ["v1", "classic"]
    assert "provider_type === &#x27;moonshot&#x27;" in page or "provider_type === 'moonshot'" in page
    assert "its own keys and its own balance" in page
    assert "Starts with bce-v3/ALTAK-." in page


def test_every_declared_option_has_one_field_for_each_type_that_has_it() -> None:
    declared = [(kind, field) for kind, _ in registry.kinds() for field in registry.form(kind) if not field.secret]
    drawn = [(kind, field) for field, kinds in option_fields().values() for kind in kinds]
    assert sorted(drawn, key=str) == sorted(((kind, field) for kind, field in declared if field.name != "base_url"), key=str)


def test_azures_options_are_stored_as_what_they_are(root: Client) -> None:
    names = {OPTION_PREFIX + name: field.name for name, (field, kinds) in option_fields().items() if "azure" in kinds}
    given = {"style": "classic", "api_version": "2024-10-21", "deployments": '{"gpt-4o": "my-gpt-4o"}'}
    response = root.post(ADD, {**AZURE, **{name: given[option] for name, option in names.items()}})
    assert response.status_code == 302, response.context["errors"]
    provider = Provider.objects.get(name="second")
    assert provider.options == {**given, "deployments": {"gpt-4o": "my-gpt-4o"}}
    page = root.get(reverse("admin:providers_provider_change", args=[provider.pk])).content.decode()
    assert "my-gpt-4o" in page
    assert re.search(r'<option value="classic"\s+selected', page)


@pytest.mark.parametrize(
    ("change", "at", "words"),
    [
        ({"option_style": "modern"}, "option_style", "not one of the available choices"),
        ({"option_deployments": "gpt-4o"}, "option_deployments", "Write an object"),
        ({"option_deployments": '["gpt-4o"]'}, "option_deployments", "Write an object"),
        ({"option_deployments": '{"gpt-4o": 4}'}, "option_deployments", "Write an object"),
        ({"base_url": ""}, "base_url", "needs an address"),
    ],
)
def test_what_the_declaration_refuses_stands_on_its_field(root: Client, change: dict[str, Any], at: str, words: str) -> None:
    response = root.post(ADD, {**AZURE, **change})
    assert response.status_code == 200
    assert words in str(response.context["adminform"].form.errors[at])
    assert not Provider.objects.exists()
