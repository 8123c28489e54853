"""Surface × value that cannot work: each is refused at save, by the name of its field, and found where it came in past the forms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.test import Client

from access.models import Team
from gateway.config.loader import load
from models_registry.models import LLMModel, Price, Route
from models_registry.services import set_price
from providers import services
from providers.api.serializers import PATHS
from providers.models import Provider, ProviderKey
from tests.gateway_config.rows import a_model, a_price, a_provider, a_provider_key, a_team, utc
from tests.undrawn import undrawn

pytestmark = pytest.mark.django_db

GOOD: dict[str, Any] = {
    "visibility": "everyone",
    "name": "vendor",
    "provider_type": "openai_compatible",
    "base_url": "https://vendor.example/v1",
    "rate_type": "token_bucket",
    "rate_capacity": 20,
    "rate_refill_per_s": 3,
    "tokens_per_minute": 90_000,
    "max_concurrency": 50,
    "breaker_fail_max": 5,
    "breaker_reset_timeout_s": 15,
    "breaker_max_reset_timeout_s": 60,
    "breaker_failure_rate": 0.5,
    "breaker_window_s": 60,
    "breaker_min_calls": 20,
    "connect_timeout_s": 3,
    "first_byte_timeout_s": 30,
    "idle_timeout_s": 60,
    "total_timeout_s": 600,
}
TIMEOUTS = ("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s", "total_timeout_s")
NUMBERS = [
    *((column, value) for column in ("rate_capacity", "rate_refill_per_s") for value in (-1, -0.001, math.nan, math.inf, 1e300)),
    ("rate_capacity", 0),  # with a rate
    ("rate_refill_per_s", 0),  # with a capacity
    *(("tokens_per_minute", value) for value in (0, -1, 10**20)),
    *(("max_concurrency", value) for value in (-1, 100_001, 10**20)),
    *(("probe_budget_micros", value) for value in (-1, 1_000_000_001)),
    *(("breaker_fail_max", value) for value in (0, -1, 1_001)),
    *(("breaker_reset_timeout_s", value) for value in (0, -1, math.nan, 86_401)),
    *(("breaker_max_reset_timeout_s", value) for value in (0, -1, math.inf, 14.9)),  # the last: below the first wait
    *(("breaker_failure_rate", value) for value in (-0.1, 1.1, math.nan)),
    *(("breaker_window_s", value) for value in (0, -1, 3_601, math.nan)),
    *(("breaker_min_calls", value) for value in (0, -1)),
    *((column, value) for column in TIMEOUTS for value in (0, -1, math.nan, math.inf, 1e9)),
]
TEXTS = [
    ("rate_type", "leaky"),
    ("rate_type", ""),
    *(("name", value) for value in ("", " ", "two words", "x" * 81, "fixed-answer")),
    ("provider_type", "nonesuch"),
    ("provider_type", "fixed-answer"),
    *(
        ("base_url", f"{value}")
        for value in (
            "",
            "vendor.example",
            "ftp://vendor.example/v1",
            "file:///etc/passwd",
            "https://",
            "https://user@vendor.example",
            "https://user:pass@vendor.example",
            "https://@vendor.example",
            "https://vendor.example/v1#",
            "https://vendor.example/v1#part",
            "https://vendor.example/v1?",
            "https://vendor.example/v1?key=1",
            "https://vendor.example:0/v1",
            "https://vendor.example:70000/v1",
            "https://vendor example/v1",
        )
    ),
]
IDS = [f"{column}={str(value)[:40]}" for column, value in (*NUMBERS, *TEXTS)]
every_bad_value = pytest.mark.parametrize(("column", "value"), [*NUMBERS, *TEXTS], ids=IDS)


def bad(column: str, value: Any) -> dict[str, Any]:
    return {**GOOD, column: value}


def body_of(columns: dict[str, Any]) -> dict[str, Any]:
    """As REST takes it."""
    body: dict[str, Any] = {}
    for column, value in columns.items():
        place, _, name = PATHS.get(column, column).rpartition(".")
        (body.setdefault(place, {}) if place else body)[name] = value
    return body


# Providers ----------------------------------------------------------------------------------------------------------


@every_bad_value
def test_the_service_refuses(column: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        services.create_provider(**bad(column, value))
    assert set(refused.value.error_dict) == {column}
    assert not Provider.objects.exists()


@every_bad_value
def test_rest_refuses(admin_client: Client, column: str, value: Any) -> None:
    body = json.dumps(body_of(bad(column, str(value) if isinstance(value, float) and not math.isfinite(value) else value)))
    response = admin_client.post("/api/v1/llm/providers", body, content_type="application/json")
    assert response.status_code == 400, response.content
    answer = response.json()
    assert set(answer) == {"type", "errors"}
    assert all(set(error) == {"code", "detail", "attr"} and error["detail"] for error in answer["errors"])
    assert {error["attr"] for error in answer["errors"]} == {PATHS.get(column, column)}
    assert not Provider.objects.exists()


@every_bad_value
def test_the_admins_form_refuses(admin_client: Client, column: str, value: Any) -> None:
    data = {"price_adjustment_bp": "0", "probe_budget_micros": "0"} | {name: str(entered) for name, entered in bad(column, value).items()}
    with undrawn():
        response = admin_client.post("/admin/providers/provider/add/", data)
    assert response.status_code == 200
    assert set(response.context_data["adminform"].form.errors) == {column}
    assert not Provider.objects.exists()


@pytest.mark.parametrize(("column", "value"), [(column, value) for column, value in NUMBERS if abs(value) < 10**10])
def test_a_row_that_came_past_the_forms_is_found_and_not_served(column: str, value: Any) -> None:
    if value < 0 and column in ("tokens_per_minute", "max_concurrency", "breaker_fail_max", "breaker_min_calls"):
        pytest.skip("the database refuses it by itself")
    services.create_provider(**GOOD)
    Provider.objects.update(**{column: value})
    snapshot = load(None)
    assert snapshot.providers == {}
    assert len(snapshot.alarms) == 1
    assert snapshot.alarms[0].startswith("Provider vendor cannot be used")
    assert [message.msg.split(": ")[0] for message in run_checks(databases=["default"])] == [f"Provider vendor, {column}"]


def test_a_patch_is_held_to_the_whole_row(admin_client: Client) -> None:
    provider = services.create_provider(**GOOD)
    url = f"/api/v1/llm/providers/{provider.id}"
    for body, at in (
        ({"breaker": {"max_reset_timeout_s": 10}}, "breaker.max_reset_timeout_s"),
        ({"rate_limit": {"capacity": 0}}, "rate_limit.capacity"),
    ):
        response = admin_client.patch(url, json.dumps(body), content_type="application/json")
        assert [error["attr"] for error in response.json()["errors"]] == [at]
    assert (
        admin_client.patch(url, json.dumps({"rate_limit": {"capacity": 0, "refill_rate": 0}}), content_type="application/json").status_code
        == 200
    )


def test_what_is_at_its_bounds_can_be_saved(admin_client: Client) -> None:
    least = {**GOOD, "rate_capacity": 1, "tokens_per_minute": 1, "max_concurrency": 0, "breaker_fail_max": 1, "breaker_failure_rate": 0}
    services.create_provider(**least)
    most = {**GOOD, "name": "most", "breaker_failure_rate": 1, "breaker_max_reset_timeout_s": 15, "total_timeout_s": 86_400}
    response = admin_client.post("/api/v1/llm/providers", json.dumps(body_of(most)), content_type="application/json")
    assert response.status_code == 201, response.content
    assert len(load(None).providers) == 2
    assert load(None).alarms == ()


def test_tokens_a_minute_reach_the_data_plane() -> None:
    provider = services.create_provider(**GOOD)
    assert load(None).providers[str(provider.id)].limits.tokens_per_minute == 90_000
    services.update_provider(provider, {"tokens_per_minute": None})
    assert not load(None).providers[str(provider.id)].limits.limits_something


# Keys, models, prices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0, -1, 101])
def test_a_keys_weight_has_bounds_everywhere(admin_client: Client, weight: int) -> None:
    provider = services.create_provider(**GOOD, secrets=["sk-vendor-secret-0001"])
    key = provider.keys.get()
    with pytest.raises(ValidationError) as refused:
        services.change_key(key, {"weight": weight})
    assert set(refused.value.error_dict) == {"weight"}
    url = f"/api/v1/llm/providers/{provider.id}/keys/{key.id}"
    response = admin_client.patch(url, json.dumps({"weight": weight}), content_type="application/json")
    assert [error["attr"] for error in response.json()["errors"]] == ["weight"]
    inline = {"keys-TOTAL_FORMS": "1", "keys-INITIAL_FORMS": "1", "keys-0-id": str(key.pk), "keys-0-provider": str(provider.pk)}
    data = {name: str(value) for name, value in GOOD.items()} | inline | {"keys-0-is_active": "on", "keys-0-weight": str(weight)}
    response = admin_client.post(f"/admin/providers/provider/{provider.pk}/change/", data)
    assert set(response.context["inline_admin_formsets"][0].formset.errors[0]) == {"weight"}
    key.refresh_from_db()
    assert key.weight == 1


MODEL = {"visibility": "everyone", "model_id": "gpt-4o", "alias": "gpt-4o", "model_type": "chat", "priority": 100, "quality": 50}
BAD_MODELS = [
    *(("priority", value) for value in (-1, 1001)),
    *(("quality", value) for value in (-1, 101)),
    *(("alias", value) for value in ("", " ", "two words")),
    *(("model_id", value) for value in ("", " ")),
    ("model_type", "poem"),
    *((limit, value) for limit in ("requests_per_minute", "tokens_per_minute", "max_concurrency") for value in (0, -1, 10**20)),
    *((window, -1) for window in ("context_window", "max_output_tokens")),
]


@pytest.mark.parametrize(("column", "value"), BAD_MODELS)
def test_models_have_bounds_everywhere(admin_client: Client, column: str, value: Any) -> None:
    provider = a_provider()
    with pytest.raises(ValidationError) as refused:
        LLMModel(provider=provider, **{**MODEL, column: value.strip() if isinstance(value, str) else value}).full_clean()
    assert set(refused.value.error_dict) == {column}
    limits = ("requests_per_minute", "tokens_per_minute", "max_concurrency")
    change = {"rate_limit": {column: value}} if column in limits else {column: value}
    body = json.dumps({"provider": str(provider.id), **MODEL, **change})
    response = admin_client.post("/api/v1/llm/models", body, content_type="application/json")
    assert response.status_code == 400
    assert [error["attr"] for error in response.json()["errors"]] == [f"rate_limit.{column}" if column in limits else column]
    form = {
        "provider": str(provider.id),
        "capabilities": "[]",
        "unsupported_params": "refuse",
        "over_long": "refuse",
        **MODEL,
        column: value,
    }
    response = admin_client.post("/admin/models_registry/llmmodel/add/", form)
    assert set(response.context["adminform"].form.errors) == {column}
    assert not LLMModel.objects.exists()


@pytest.mark.parametrize("amount", ["-0.01", "NaN", "Infinity", "1e30", "free", "0.0000001"])
def test_prices_have_bounds_everywhere(admin_client: Client, amount: str) -> None:
    model = a_model(a_provider())
    with pytest.raises(ValidationError) as refused:
        set_price(model, currency="USD", per_million={"input": amount, "output": "1"})
    assert set(refused.value.error_dict) == {"per_million.input"}
    body = json.dumps({"model": str(model.id), "currency": "USD", "per_million": {"input": amount, "output": "1"}})
    response = admin_client.post("/api/v1/llm/prices", body, content_type="application/json")
    assert response.status_code == 400
    assert [error["attr"] for error in response.json()["errors"]] == ["per_million.input"]
    page = f"/admin/models_registry/llmmodel/{model.pk}/price/"
    response = admin_client.post(page, {"currency": "USD", "input": amount, "output": "1"})
    assert set(response.context["form"].errors) == {"input"}
    assert not Price.objects.exists()


# What came in past the forms ----------------------------------------------------------------------------------------


def test_every_row_that_cannot_work_is_named_with_its_field() -> None:
    provider = a_provider("main")
    key, model = a_provider_key(provider), a_model(provider)
    price = a_price(model, utc(2026))
    Route.objects.create(alias="r", targets=["gone"])
    Route.objects.create(alias="s", targets={"no": "list"})
    a_team("growth")
    Provider.objects.update(breaker_failure_rate=7, base_url="ftp://x")
    ProviderKey.objects.update(weight=0)
    LLMModel.objects.update(priority=5000)
    Price.objects.filter(pk=price.pk).update(reasoning_micros=-1)
    Team.objects.update(max_concurrency=0)
    found = {message.msg.split(": ")[0] for message in run_checks(databases=["default"])}
    assert found == {
        "Provider main, breaker_failure_rate",
        "Provider main, base_url",
        f"Provider key {key}, weight",
        "Model gpt-4o, priority",
        f"Price {price}, reasoning_micros",
        "Route r, targets",
        "Route s, targets",
        "Team growth, max_concurrency",
    }


def test_rows_are_read_only_where_a_database_is_named(django_assert_num_queries: Callable[..., Any]) -> None:
    a_provider()
    Provider.objects.update(breaker_fail_max=0)
    with django_assert_num_queries(0):
        call_command("check")
    with pytest.raises(SystemCheckError, match="Provider openai-main, breaker_fail_max"):
        call_command("check", databases=["default"])


@pytest.mark.django_db(transaction=True)
def test_a_table_that_is_not_there_yet_is_no_news() -> None:
    table = Route._meta.db_table
    a_provider()
    Provider.objects.update(breaker_fail_max=0)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO away")
        try:
            found = [message.msg for message in run_checks(databases=["default"])]
        finally:
            cursor.execute(f"ALTER TABLE away RENAME TO {table}")
    assert len(found) == 1
