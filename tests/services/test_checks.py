"""`manage.py check` names rows that came into the database past admin and REST."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from access.models import ApiKey, Team
from models_registry.models import LLMModel
from tests.gateway_config.rows import a_model, a_provider, a_team, an_api_key

pytestmark = pytest.mark.django_db


def found() -> set[str]:
    return {
        f"{message.id} {message.msg}" for message in run_checks() if message.id in ("models_registry.E001", "access.E001", "access.E002")
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
        "access.E001 team growth, max_concurrency",
        "access.E002 API key backend (sk-llmc-abcd…), tokens_per_minute",
        "models_registry.E001 model gpt-4o, requests_per_minute",
    ]
