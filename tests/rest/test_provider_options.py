"""What a provider type declares is what REST takes and describes."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from providers.models import Provider
from tests.rest.conftest import SECRET, attrs
from tests.rest.provider_body import URL

CONFIG = {
    "api_key": SECRET,
    "base_url": "https://my-resource.openai.azure.com",
    "style": "classic",
    "api_version": "2024-10-21",
    "deployments": {"gpt-4o": "my-gpt-4o"},
}


def test_azures_options_round_trip(root: APIClient) -> None:
    shown = root.post(URL, {"name": "azure-main", "provider_type": "azure", "config": CONFIG}).json()
    assert shown["config"] == {name: value for name, value in CONFIG.items() if name != "api_key"}


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"style": "modern"}, "config.style"),
        ({"style": ["v1"]}, "config.style"),
        ({"deployments": "gpt-4o"}, "config.deployments"),
        ({"deployments": {"gpt-4o": 4}}, "config.deployments"),
        ({"api_version": "2024\r\nx-evil: 1"}, "config.api_version"),
        ({"api_version": {"a": 1}}, "config.api_version"),
        ({"base_url": ""}, "config.base_url"),
        ({"appid": "app-1"}, "config"),
    ],
)
def test_what_the_declaration_refuses_is_named(root: APIClient, change: dict[str, Any], at: str) -> None:
    response = root.post(URL, {"name": "azure-main", "provider_type": "azure", "config": {**CONFIG, **change}})
    assert attrs(response) == {at}
    assert not Provider.objects.exists()


def test_a_change_is_judged_by_the_rows_own_type(root: APIClient) -> None:
    shown = root.post(URL, {"name": "azure-main", "provider_type": "azure", "config": CONFIG}).json()
    url = f"{URL}/{shown['id']}"
    assert attrs(root.patch(url, {"config": {"style": "modern"}})) == {"config.style"}
    assert root.patch(url, {"config": {"style": "v1"}}).json()["config"]["style"] == "v1"


def test_the_description_of_the_api_holds_what_the_types_declare(root: APIClient) -> None:
    schemas = root.get("/api/schema/?format=json").json()["components"]["schemas"]
    config = schemas["Provider"]["properties"]["config"]["properties"]
    assert config["style"]["enum"] == ["v1", "classic"]
    assert config["deployments"]["additionalProperties"] == {"type": "string"}
    assert "moonshot: China: leave it empty." in config["base_url"]["description"]
    assert config["api_key"]["writeOnly"] is True
