"""Breakers that open and close are in the trail, once for each provider and process; where it cannot be written, nobody pays for that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import OperationalError

from core.clock import FrozenClock
from gateway.config import breaker_events
from gateway.config.states import StatePublisher
from monitoring.models import AuditEvent
from providers.models import Provider
from providers.services import create_provider

pytestmark = pytest.mark.django_db


def breaker(state: str, model: str = "gpt-4o", key: str = "k1") -> dict[str, Any]:
    return {"key": key, "model": model, "state": state, "failures": 5, "reason": "answered 500", "next_try_at": 1.0}


class Desk:
    def __init__(self, provider: Provider) -> None:
        self.id = str(provider.pk)
        self.found: dict[str, Any] = {}
        self.clock = FrozenClock()
        self.publisher = StatePublisher(lambda: self.found, clock=self.clock)

    def look(self, *breakers: dict[str, Any]) -> None:
        self.clock.advance(2)
        self.found = {self.id: {"breakers": list(breakers), "rests": []}} if breakers else {}
        if (work := self.publisher.due()) is not None:
            work()


def events() -> list[list[Any]]:
    found = AuditEvent.objects.filter(action="breaker").order_by("sequence")
    return [json.loads(event.changes)["open breakers"] for event in found]


def test_opened_and_closed() -> None:
    desk = Desk(create_provider(name="vendor", provider_type="echo"))
    desk.look(breaker("closed"))
    desk.look(breaker("open"))
    desk.look(breaker("half-open"))
    desk.look(breaker("open"))
    desk.look(breaker("open"), breaker("open", key=""))
    desk.look()
    first, second = "model gpt-4o at key k1", "model gpt-4o"
    assert events() == [
        [[], [f"{first}: answered 500"]],
        [[first], [f"{second}: answered 500", first]],
        [[second, first], []],
    ]
    event = AuditEvent.objects.filter(action="breaker").first()
    assert (event.source, event.actor, event.object_label) == ("data plane", "system", "vendor")


def test_what_cannot_be_recorded_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(create_provider(name="vendor", provider_type="echo"))

    def full(*args: Any) -> None:
        raise OperationalError("disk full")

    monkeypatch.setattr(breaker_events.audit, "note", full)
    desk.look(breaker("open"))
    assert "could not be recorded" in caplog.text
    assert events() == []


def test_an_outage_of_many_vendors_is_bounded() -> None:
    providers = [create_provider(name=f"vendor-{number}", provider_type="echo") for number in range(30)]
    after = {str(provider.pk): {"breakers": [breaker("open")], "rests": []} for provider in providers}
    breaker_events.record_breakers("p", {}, after)
    assert len(events()) == breaker_events.MAX_EVENTS_PER_LOOK
