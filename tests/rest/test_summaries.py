"""The last 24 hours in one answer, and the metrics as JSON and under their other names."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from prometheus_client import CollectorRegistry, Counter, generate_latest
from rest_framework.test import APIClient

from monitoring import metrics, rollups
from tests.rest.conftest import request_log, usage_record


def test_the_last_day_by_provider_and_model(viewer: APIClient, db: None) -> None:
    now = timezone.now()
    for number in (1, 2, 3):
        started_at = now - timedelta(minutes=5) if number < 3 else now - timedelta(days=3)
        usage_record(number, started_at=started_at, cost_micros=2_000_000)
        request_log(number, started_at=started_at, duration_ms=1_000)
    request_log(4, started_at=now - timedelta(minutes=5), attempts=0, status_code=429, alias="echo", provider_name="", model_id="")
    rollups.rebuild()
    answer = viewer.get("/api/v1/stats").json()
    assert (answer["totals"]["requests"], answer["totals"]["refused"], answer["totals"]["cost"]) == (2, 1, {"USD": "4.0"})
    assert answer["totals"]["p95_ms"] > 0
    (provider,), (model,) = answer["providers"], answer["models"]
    assert (provider["requests"], model["name"], model["requests"]) == (2, "echo", 2)


def test_metrics_as_json(viewer: APIClient, db: None) -> None:
    metrics.ERRORS.labels("test_summary").inc(3)
    found = viewer.get("/api/v1/metrics").json()["metrics"]
    assert {"labels": {"code": "test_summary"}, "value": 3.0} in found["llm_errors_total"]
    assert all(name.startswith("llm_") and not name.endswith("_created") for name in found)


def test_the_exposition_has_the_other_names(viewer: APIClient, db: None) -> None:
    metrics.TOKENS.labels("main", "test-aliases", "input").inc(5)
    lines = viewer.get("/metrics").content.decode().splitlines()
    ours = [line for line in lines if "test-aliases" in line and line.startswith("llm_tokens_total")]
    assert ours
    assert ours[0].replace("llm_tokens_total", "llm_tokens_used_total") in lines
    assert "# TYPE llm_tokens_used_total counter" in lines
    assert "# TYPE llm_provider_cost_total counter" in lines


@pytest.mark.parametrize("name", metrics.ALIASES)
def test_only_whole_names_have_another(name: str) -> None:
    registry = CollectorRegistry()
    Counter(f"{name.removesuffix('_total')}_more", "Another metric", registry=registry).inc()
    exposition = generate_latest(registry)
    assert metrics.with_aliases(exposition) == exposition
