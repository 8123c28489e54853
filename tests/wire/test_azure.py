"""Azure's two styles against samples: addresses, deployments, its odd answers and its errors."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import ConfigurationError
from providers.adapters.registry import adapter_for
from tests.adapters.cast import SECRET, provider
from tests.wire.rows_cast import check_answer, check_error, check_models, check_request, samples


@pytest.mark.parametrize(("kind", "sample"), samples("azure", "requests"))
def test_what_is_sent(kind: str, sample: dict[str, Any]) -> None:
    check_request(kind, sample)


@pytest.mark.parametrize(("kind", "sample"), samples("azure", "answers"))
def test_what_a_client_hears(kind: str, sample: dict[str, Any]) -> None:
    check_answer(kind, sample)


@pytest.mark.parametrize(("kind", "sample"), samples("azure", "errors"))
def test_which_error_a_refusal_is(kind: str, sample: dict[str, Any]) -> None:
    check_error(kind, sample)


@pytest.mark.parametrize(("kind", "sample"), samples("azure", "models"))
def test_which_models_are_listed(kind: str, sample: dict[str, Any]) -> None:
    check_models(kind, sample)


def test_the_key_is_in_azures_header_alone() -> None:
    headers = adapter_for(provider("azure", "https://r.openai.azure.com")).models_call(SECRET).headers
    assert headers["api-key"] == SECRET.reveal()
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": "modern"}, "option style: Choose one of v1, classic"),
        ({"deployments": "gpt-4o"}, "option deployments: Write an object"),
        ({"api_version": "2024\n"}, "option api_version: Write one line"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        adapter_for(provider("azure", "https://r.openai.azure.com", options=options))
