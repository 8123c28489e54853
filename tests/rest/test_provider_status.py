"""How providers fare: what every process says of them, over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from gateway.config.publisher import current_version
from monitoring.models import UsageRecord
from providers import services, states
from providers.models import Provider, ProviderState
from tests.rest.conftest import World
from tests.rest.provider_body import URL

pytestmark = pytest.mark.usefixtures("standing_world")


def said(provider: Provider, process: str = "p1", **state: Any) -> None:
    states.write(process, {str(provider.id): {"breakers": [], "rests": [], **state}})


def test_the_read_only_list(viewer: APIClient, world: World) -> None:
    key = {"id": str(world.key.id), "last4": "1234", "state": "active", "weight": 1, "rests": []}
    limiter = {"type": "token_bucket", "capacity": 0.0, "refill_rate": 0.0, "max_concurrency": 100}
    expected = {
        "name": "echo",
        "kind": "echo",
        "active": True,
        "breaker": "closed",
        "breakers": [],
        "listing": None,
        "probes": None,
        "limiter": limiter,
        "keys": [key],
        "attempts": 0,
        "error_rate": None,
        "latency_ms": {"p50": None, "p95": None},
    }
    assert viewer.get("/api/v1/providers").json()["results"] == [expected]
    assert viewer.get("/api/v1/providers/status").json()["results"] == [expected]
    assert viewer.get("/api/v1/providers/echo/status").json() == expected
    assert viewer.get("/api/v1/providers/nobody/status").status_code == 404


def test_the_state_is_the_worst_that_any_process_says(viewer: APIClient, world: World) -> None:
    key = str(world.key.id)
    breaker = {"key": key, "model": "m", "state": "closed", "failures": 2, "reason": "", "next_try_at": None}
    said(world.provider, "p1", breakers=[breaker])
    opened = {**breaker, "state": "open", "failures": 5, "reason": "It failed.", "next_try_at": 1_000_000_000}
    rest = {"key": key, "model": "", "reason": "It was refused.", "next_try_at": 1_000_000_060}
    said(world.provider, "p2", breakers=[opened], rests=[rest])
    status = viewer.get("/api/v1/providers/echo/status").json()
    assert status["breaker"] == "open"
    assert status["breakers"] == [
        {
            "key_id": key,
            "last4": "1234",
            "model": "m",
            "state": "open",
            "failures": 5,
            "reason": "It failed.",
            "next_try_at": "2001-09-09T01:46:40Z",
            "processes": 2,
        }
    ]
    assert status["keys"][0]["state"] == "resting"
    assert status["keys"][0]["rests"] == [{"model": "", "reason": "It was refused.", "next_try_at": "2001-09-09T01:47:40Z"}]


def test_a_list_that_could_not_be_had_is_told_once_for_all_processes(viewer: APIClient, world: World) -> None:
    said(world.provider, "p1", listing={"reason": "It timed out.", "since": 1_000_000_000})
    said(world.provider, "p2", listing={"reason": "It cannot be reached.", "since": 1_000_000_060})
    said(world.provider, "p3", breakers=[])
    status = viewer.get("/api/v1/providers/echo/status").json()
    assert status["listing"] == {"reason": "It cannot be reached.", "since": "2001-09-09T01:46:40Z", "processes": 2}
    assert status["breaker"] == "closed"


def test_probes_that_failed_are_told_once_for_all_processes(viewer: APIClient, world: World) -> None:
    Provider.objects.filter(pk=world.provider.pk).update(probe_budget_micros=20_000)
    failed = {"model": "gpt", "reason": "It timed out.", "since": 1_000_000_000}
    said(world.provider, "p1", probes={"failed": [failed], "note": ""})
    said(world.provider, "p2", probes={"failed": [{**failed, "since": 1_000_000_060}], "note": "The budget is spent."})
    said(world.provider, "p3", breakers=[])
    assert viewer.get("/api/v1/providers/echo/status").json()["probes"] == {
        "budget_micros": 20_000,
        "spent_micros": 0,
        "currency": "USD",
        "failed": [{"model": "gpt", "reason": "It timed out.", "since": "2001-09-09T01:46:40Z", "processes": 2}],
        "note": "The budget is spent.",
    }


def test_what_silent_processes_said_is_ignored_and_cleared(viewer: APIClient, world: World) -> None:
    breaker = {"key": str(world.key.id), "model": "m", "state": "open", "failures": 5, "reason": "", "next_try_at": None}
    said(world.provider, "dead", breakers=[breaker])
    ProviderState.objects.update(updated_at=timezone.now() - states.STALE_AFTER - timedelta(seconds=1))
    assert viewer.get("/api/v1/providers/echo/status").json()["breaker"] == "closed"
    states.write("alive", {})
    assert not ProviderState.objects.exists()


def test_latency_and_error_rate_are_of_the_last_minutes(viewer: APIClient, world: World) -> None:
    for attempt, (minutes, status, duration_ms) in enumerate([(1, "ok", 100), (1, "error", 300), (9, "error", 900)]):
        UsageRecord.objects.create(
            request_id="r",
            attempt=attempt,
            started_at=timezone.now() - timedelta(minutes=minutes),
            provider_id=str(world.provider.id),
            status=status,
            duration_ms=duration_ms,
        )
    status = viewer.get("/api/v1/providers/echo/status").json()
    assert (status["attempts"], status["error_rate"], status["latency_ms"]) == (2, 0.5, {"p50": 300, "p95": 300})


def test_a_busy_provider_hides_no_other(viewer: APIClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_MAX_RECORDS", 4)
    busy = services.create_provider(name="busy", provider_type="echo")
    for number, provider in enumerate([world.provider, *[busy] * 5]):
        moment = timezone.now() - timedelta(seconds=60 - number)
        UsageRecord.objects.create(
            request_id=f"r{number}", attempt=1, started_at=moment, provider_id=str(provider.id), status="error", duration_ms=100
        )
    found = {row["name"]: row for row in viewer.get("/api/v1/providers/status").json()["results"]}
    assert (found["echo"]["attempts"], found["echo"]["error_rate"]) == (1, 1.0)
    assert found["busy"]["attempts"] == 2


def test_reset_breaker_reaches_the_configuration(root: APIClient, world: World) -> None:
    before = current_version()
    assert root.post(f"{URL}/{world.provider.id}/reset-breaker").status_code == 200
    world.provider.refresh_from_db()
    assert services.spec_of(world.provider, []).breaker.reset_at == world.provider.breaker_reset_at.timestamp()
    assert current_version() > before
