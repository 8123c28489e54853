"""`manage.py check` names rows that came into the database past admin and REST."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from access.models import ApiKey, Team
from models_registry.models import LLMModel
from models_registry.services import set_exchange_rate, set_price
from tests.gateway_config.rows import a_model, a_provider, a_team, an_api_key

pytestmark = pytest.mark.django_db


def found() -> set[str]:
    return {
        f"{message.id} {message.msg}"
        for message in run_checks(databases=["default"])
        if message.id in ("models_registry.E001", "access.E001", "access.E002")
    }


def test_rows_that_could_be_saved_are_no_news() -> None:
    a_model(a_provider())
    an_api_key(a_team(), requests_per_minute=5)
    assert found() == set()


def test_each_field_that_cannot_work_is_named() -> None:
    a_model(a_provider(), "gpt-4o")
    an_api_key(a_team("growth"), "backend")
    LLMModel.objects.update(requests_per_minute=0)
    Team.objects.update(max_concurrency=0)
    ApiKey.objects.update(tokens_per_minute=0)
    assert sorted(line.split(": ")[0] for line in found()) == [
        "access.E001 Team growth, max_concurrency",
        "access.E002 API key backend (sk-llmc-abcd…), tokens_per_minute",
        "models_registry.E001 Model gpt-4o, requests_per_minute",
    ]


def unconvertible() -> list[str]:
    return [str(message.msg) for message in run_checks(databases=["default"]) if message.id == "models_registry.W001"]


def test_prices_in_a_currency_without_a_rate_are_warned_of_until_there_is_one() -> None:
    model = a_model(a_provider(), "gpt-4o")
    set_price(model, currency="USD", per_million={"input": "1", "output": "1"})
    assert unconvertible() == []
    set_price(a_model(a_provider("other"), "qwen"), currency="CNY", per_million={"input": "1", "output": "1"})
    set_price(a_model(a_provider("third"), "mistral"), currency="EUR", per_million={"input": "1", "output": "1"})
    (euro,) = (sentence for sentence in unconvertible() if "EUR" in sentence)
    assert euro.startswith("There are prices in EUR, and no exchange rate from EUR to USD is in force: ")
    set_exchange_rate(base="EUR", quote="USD", rate="1.1")
    set_exchange_rate(base="CNY", quote="EUR", rate="0.12")  # over a third currency none is made up
    assert [sentence[:23] for sentence in unconvertible()] == ["There are prices in CNY"]
    set_exchange_rate(base="USD", quote="CNY", rate="7.12")
    assert unconvertible() == []
