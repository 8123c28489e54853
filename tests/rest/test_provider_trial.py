"""A provider is tried over REST: what its vendor answers is told, and kept."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient
from rest_framework.test import APIClient

from gateway.config.publisher import current_version
from models_registry.models import LLMModel
from providers.report import CHAT_CHECKS
from tests.rest.conftest import World, attrs
from tests.rest.provider_body import URL


def test_test_has_the_contracts_shape(root: APIClient, world: World) -> None:
    report = root.post(f"{URL}/{world.provider.id}/test").json()
    assert set(report) == {"ok", "latency_ms", "checks", "tokens_used", "model"}
    assert (report["ok"], report["model"]) == (True, "echo-1")
    assert isinstance(report["latency_ms"], int)
    assert report["tokens_used"] > 0
    assert [check["name"] for check in report["checks"]] == list(CHAT_CHECKS)
    assert all(set(check) == {"name", "result", "detail"} for check in report["checks"])


def test_what_a_test_found_is_kept_at_the_model_and_raises_the_version(root: APIClient, world: World) -> None:
    before = current_version()
    report = root.post(f"{URL}/{world.provider.id}/test", {"model": "echo"}).json()
    shown = root.get(f"/api/v1/llm/models/{world.model.id}").json()
    assert shown["tested"] == {check["name"]: check["result"] for check in report["checks"]}
    assert shown["tested_at"] is not None
    assert shown["capabilities"] == ["stream", "tools"]
    assert current_version() > before


def test_a_model_can_be_named_that_is_no_row(root: APIClient, world: World) -> None:
    report = root.post(f"{URL}/{world.provider.id}/test", {"model": "echo-9"}).json()
    assert (report["ok"], report["model"]) == (False, "echo-9")
    assert root.get(f"/api/v1/llm/models/{world.model.id}").json()["tested"] == {}


@pytest.mark.parametrize(("body", "at"), [({"model": {}}, {"model"}), ({"modle": "echo"}, {"modle"})])
def test_a_bad_test_names_the_field(root: APIClient, world: World, body: dict[str, Any], at: set[str]) -> None:
    assert attrs(root.post(f"{URL}/{world.provider.id}/test", body)) == at


def test_a_model_of_another_kind_cannot_be_tested(root: APIClient, world: World) -> None:
    LLMModel.objects.update(model_type="image")
    assert attrs(root.post(f"{URL}/{world.provider.id}/test", {"model": "echo"})) == {"model"}


@pytest.mark.django_db(transaction=True)
async def test_test_works_where_the_server_runs_an_event_loop(world: World) -> None:
    client = AsyncClient()
    await sync_to_async(client.force_login)(await sync_to_async(User.objects.create_superuser)("boss"))
    response = await client.post(f"{URL}/{world.provider.id}/test", content_type="application/json")
    assert (response.status_code, response.json()["ok"]) == (200, True)
