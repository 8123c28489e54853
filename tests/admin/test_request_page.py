"""The page of one request: its attempts on one axis of time, in plain words, and what each person may see of them."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from core import errors
from core.choice import Candidate, Decision, Stage, decided, stored
from monitoring.interruption import NEVER_ENDED, PROCESS_DIED
from monitoring.models import RequestBody, RequestLog, UsageRecord
from monitoring.timeline import MEANINGS, meaning, timeline
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")


def url(request: RequestLog) -> str:
    return reverse("admin:monitoring_requestlog_change", args=[request.pk])


def second_attempt(world: World, **columns: object) -> UsageRecord:
    """After one that failed within half a second."""
    first = world.usage
    first.status, first.error_code, first.vendor_status, first.duration_ms = "error", "upstream_timeout", 0, 500
    first.save()
    begun = first.started_at + timedelta(milliseconds=500)
    known = {"provider_id": "p", "provider_name": "second", "alias": "gpt-4o", "model_id": "m", "usage_source": "vendor", "status": "ok"}
    return UsageRecord.objects.create(
        request_id=first.request_id, attempt=2, started_at=begun, duration_ms=500, first_token_ms=250, **{**known, **columns}
    )


def test_bars_lie_where_the_attempts_were(world: World) -> None:
    second = second_attempt(world)
    request = RequestLog(started_at=world.usage.started_at, duration_ms=1000, first_token_ms=750, status_code=200)
    drawn = timeline(request, [world.usage, second])
    assert [bar[:3] for bar in drawn.whole] == [("0.00%", "75.00%", "wait"), ("75.00%", "25.00%", "ok")]
    assert [bar[:3] for bar in drawn.attempts[0]] == [("0.00%", "50.00%", "error")]
    assert [bar[:3] for bar in drawn.attempts[1]] == [("50.00%", "25.00%", "wait"), ("75.00%", "25.00%", "ok")]
    assert drawn.ticks[0] == ("0.00%", "0 ms")
    assert drawn.ticks[-1] == ("100.00%", "1,000 ms")


def test_an_attempt_before_or_beyond_its_request_still_lies_on_the_axis(world: World) -> None:
    world.usage.started_at -= timedelta(milliseconds=100)
    world.usage.duration_ms = 2000
    request = RequestLog(started_at=world.request.started_at, duration_ms=0, status_code=200)
    alone, busy = timeline(request, []), timeline(request, [world.usage])
    for bar in (*alone.whole, *busy.whole, *busy.attempts[0]):
        begins, width = (float(part.removesuffix("%")) for part in (bar.x, bar.width))
        assert begins >= 0
        assert begins + width <= 100.01


def test_every_error_of_an_attempt_has_words() -> None:
    of_vendors = {
        error.code
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, errors.ProviderError | errors.BudgetExhausted | errors.ClientGone | errors.ModelUnpriced)
    }
    assert {*of_vendors, PROCESS_DIED.code, NEVER_ENDED.code} <= set(MEANINGS)


def test_what_a_vendor_said_by_its_status_stands_beside_the_words() -> None:
    assert meaning(UsageRecord(error_code="upstream_error", vendor_status=503)).endswith("The vendor's status was 503.")
    assert meaning(UsageRecord(error_code="of_tomorrow")) == "It failed."
    assert meaning(UsageRecord()) == ""


def test_the_page_draws_them_and_says_what_happened(root: Client, world: World) -> None:
    second_attempt(world, provider_key_id=str(world.provider.keys.get().pk))
    page = root.get(url(world.request)).content.decode()
    assert page.count("llmc-time-bar") == 3
    assert "did not answer in time" in page
    assert world.provider.keys.get().label in page
    assert "250 ms" in page


def test_keys_of_vendors_are_not_for_everybody(staff: Callable[..., Client], world: World) -> None:
    key = world.provider.keys.get()
    UsageRecord.objects.update(provider_key_id=str(key.pk))
    shown = staff("monitoring.view_requestlog").get(url(world.request)).content.decode()
    assert key.last4 not in shown
    assert "The provider's key" not in shown


def test_a_key_that_is_gone_is_told_from_none(root: Client, world: World) -> None:
    UsageRecord.objects.update(provider_key_id="00000000-0000-4000-8000-000000000000")
    assert ">deleted<" in root.get(url(world.request)).content.decode()
    UsageRecord.objects.update(provider_key_id="not an id")
    assert root.get(url(world.request)).status_code == 200


def test_the_decision_leads_to_its_explanation(root: Client, world: World) -> None:
    assert "named its model" in root.get(url(world.request)).content.decode()
    candidates = Candidate(0, "gpt-4o", "vendor", "gpt"), Candidate(0, "mini", "vendor", "m", lacks="no tools")
    decision = decided(Decision("auto", "", (Stage("route words", "quality"),), ("tools",), 9, 9, 9, 0.0, "USD", candidates))
    RequestLog.objects.update(decision=stored(decision), alias="auto")
    page = root.get(url(world.request)).content.decode()
    assert "2 candidates, 1 rejected" in page
    assert 'href="#why"' in page
    assert 'id="why"' in page


def test_it_says_how_bodies_come_to_be_kept(root: Client, world: World, settings: object) -> None:
    RequestLog.objects.update(key_id=str(world.key.pk))
    page = root.get(url(world.request)).content.decode()
    assert reverse("admin:access_apikey_change", args=[world.key.pk]) in page
    assert "store bodies" in page
    settings.BODY_MAX_BYTES = 0  # type: ignore[attr-defined]
    assert "LLM_BODY_MAX_BYTES is 0" in root.get(url(world.request)).content.decode()
    kept = {"request": zlib.compress(b"{}"), "response": zlib.compress(b"{}"), "request_bytes": 2, "response_bytes": 2}
    RequestBody.objects.create(request_id=world.request.request_id, started_at=world.request.started_at, key_id="k", **kept)
    page = root.get(url(world.request)).content.decode()
    assert reverse("admin:monitoring_requestlog_bodies", args=[world.request.pk]) in page
    assert "LLM_BODY_MAX_BYTES" not in page


def test_the_page_costs_as_many_queries_whatever_it_shows(
    root: Client, world: World, django_assert_max_num_queries: Callable[..., object]
) -> None:
    for number in range(2, 30):
        second_attempt(world) if number == 2 else UsageRecord.objects.create(
            request_id="req_one", attempt=number, started_at=world.usage.started_at, provider_id="p", status="ok", usage_source="vendor"
        )
    with django_assert_max_num_queries(9):
        root.get(url(world.request))


def test_a_trace_and_an_answer_that_was_given_again_are_told(root: Client, world: World) -> None:
    assert "another request with its Idempotency-Key" not in root.get(url(world.request)).content.decode()
    RequestLog.objects.update(trace_id="0af7651916cd43dd8448eb211c80319c", replayed=True)
    page = root.get(url(world.request)).content.decode()
    assert "another request with its Idempotency-Key" in page
    assert "0af7651916cd43dd8448eb211c80319c" in page
