"""Why a request got the model it got, over REST: for people by their roles, for programs of their own key."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from access.models import ApiKey
from core.choice import Candidate, Decision, Stage, decided, stored
from tests.rest.conftest import World, request_log, usage_record

CHOSEN = stored(
    decided(
        Decision(
            "auto",
            "translation",
            (Stage("route words", "cost"), Stage("any model this key may use")),
            ("tools",),
            40,
            500,
            540,
            0.0,
            "USD",
            (
                Candidate(0, "big", "openai", "gpt", cost_micros=90),
                Candidate(0, "small", "local", "qwen", lacks="its connection test failed for tools"),
                Candidate(0, "other", "claude", "haiku", cost_micros=7),
                Candidate(1, "echo", "echo", "echo-1"),
            ),
        )
    )
)


def url(request_id: str) -> str:
    return f"/api/v1/requests/{request_id}/explain"


def explained(client: APIClient, request_id: str) -> dict[str, Any]:
    response = client.get(url(request_id))
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def program(plaintext: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {plaintext}")
    return client


def test_candidates_reasons_attempts_and_version(viewer: APIClient, db: None) -> None:
    request_log(
        7, alias="auto", task_type="translation", decision=CHOSEN, config_version=42, provider_name="openai", model_id="gpt", attempts=2
    )
    usage_record(7, attempt=1, provider_name="claude", model_id="haiku", alias="other", status="error", error_code="upstream_timeout")
    usage_record(7, attempt=2, provider_name="openai", model_id="gpt", alias="big")
    found = explained(viewer, "req-7")
    assert (found["asked"], found["task_type"], found["config_version"], found["chosen"]) == ("auto", "translation", 42, True)
    assert (found["needs"], found["input_tokens"], found["output_tokens"]) == (["tools"], 40, 500)
    assert found["answered_by"] == {"provider": "openai", "model": "gpt"}
    assert [(line["place"], line["alias"], line["rejected"]) for line in found["candidates"]] == [
        (1, "other", False),
        (2, "big", False),
        (3, "echo", False),
        (None, "small", True),
    ]
    assert [line["reason"] for line in found["candidates"]] == [
        "0.000007 USD for about 40 tokens in and 500 out",
        "0.00009 USD for about 40 tokens in and 500 out",
        "as listed",
        "its connection test failed for tools",
    ]
    assert [(one["attempt"], one["provider"], one["status"], one["error_code"]) for one in found["attempts"]] == [
        (1, "claude", "error", "upstream_timeout"),
        (2, "openai", "ok", ""),
    ]


def test_a_request_that_named_its_model_is_explained_by_its_attempts(viewer: APIClient, world: World) -> None:
    found = explained(viewer, "req-1")
    assert (found["chosen"], found["draw"]) == (False, None)
    assert [(line["place"], line["alias"], line["reason"]) for line in found["candidates"]] == [(1, "echo", "named by the request")]


def test_a_refused_request_says_why(viewer: APIClient, db: None) -> None:
    request_log(7, attempts=0, provider_name="", model_id="", status_code=404, error_code="model_not_found", error_message="No such model.")
    found = explained(viewer, "req-7")
    assert (found["candidates"], found["attempts"], found["answered_by"]) == ([], [], None)
    assert found["error"] == {"code": "model_not_found", "message": "No such model."}


def test_a_decision_that_cannot_be_read_is_none(viewer: APIClient, db: None) -> None:
    request_log(7, decision="[1, 2")
    assert explained(viewer, "req-7")["chosen"] is False


def test_a_program_sees_its_own_keys_requests_and_needs_the_scope(world: World) -> None:
    request_log(7, key_id=str(world.api_key.pk))
    ApiKey.objects.update(scopes=["chat", "models"])
    assert program(world.api_key_plaintext).get(url("req-7")).status_code == 403
    assert program(world.api_key_plaintext).get("/api/v1/tasks").status_code == 403
    ApiKey.objects.update(scopes=["usage"])
    assert explained(program(world.api_key_plaintext), "req-7")["request_id"] == "req-7"
    assert program(world.api_key_plaintext).get(url("req-1")).status_code == 404
    assert program("sk-llmc-nobody").get(url("req-7")).status_code == 401


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_it_is_only_read(root: APIClient, world: World, method: str) -> None:
    assert getattr(root, method)(url("req-1")).status_code == 405


def test_the_list_of_requests_does_not_show_it(viewer: APIClient, db: None) -> None:
    request_log(7, decision=CHOSEN)
    assert "decision" not in viewer.get("/api/v1/requests").json()["results"][0]
