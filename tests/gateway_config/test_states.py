"""What a process knows of its providers is written when it changes, at most once a second, and again before it lapses."""

from __future__ import annotations

from typing import Any

import pytest

from core.clock import FrozenClock
from core.config import Snapshot
from gateway.config.states import StatePublisher
from gateway.config.watcher import Watcher
from monitoring.threads import in_thread
from providers import services
from providers.models import ProviderState

OPEN: dict[str, Any] = {"p": {"breakers": ["open"], "rests": []}}


class Desk:
    """A publisher with everything around it."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.written: list[dict[str, Any]] = []
        self.clock = FrozenClock()
        self.publisher = StatePublisher(
            lambda: self.found, write=lambda process, found: self.written.append(dict(found)), record=lambda *found: None, clock=self.clock
        )

    def look(self) -> int:
        """How often was written so far."""
        if (work := self.publisher.due()) is not None:
            work()
        return len(self.written)


def test_nothing_is_written_while_all_is_well() -> None:
    desk = Desk()
    assert desk.look() == 0
    desk.clock.advance(1000)
    assert desk.look() == 0


def test_a_change_is_written_once_and_its_end_too() -> None:
    desk = Desk()
    desk.found = OPEN
    assert [desk.look(), desk.look()] == [1, 1]
    desk.clock.advance(1)
    desk.found = {}
    assert desk.look() == 2
    assert desk.written == [OPEN, {}]


def test_it_writes_at_most_once_a_second() -> None:
    desk = Desk()
    for number in range(10):
        desk.found = {"p": {"breakers": [number], "rests": []}}
        desk.look()
        desk.clock.advance(0.25)
    assert [found["p"]["breakers"] for found in desk.written] == [[0], [4], [8]]


def test_what_still_holds_is_said_again_before_it_lapses() -> None:
    desk = Desk()
    desk.found = OPEN
    desk.look()
    desk.clock.advance(9)
    assert desk.look() == 1
    desk.clock.advance(1)
    assert desk.look() == 2


@pytest.mark.django_db(transaction=True)
async def test_the_watcher_writes_it_down_beside_the_configuration() -> None:
    provider = await in_thread(lambda: services.create_provider(name="echo", provider_type="echo"))
    state = {"breakers": [], "rests": [{"key": "", "model": "m", "reason": "x", "next_try_at": 1}]}
    publisher = StatePublisher(lambda: {str(provider.pk): state})
    watcher = Watcher(lambda previous: Snapshot(1, 0.0), lambda: 1, lambda snapshot: None, 1.0, publish=publisher.due)
    await watcher.tell()
    await watcher.stop()
    assert [row.state for row in await in_thread(lambda: list(ProviderState.objects.filter(provider=provider)))] == [state]


async def test_a_failure_to_write_disturbs_nothing() -> None:
    def broken() -> None:
        raise OSError("no database")

    watcher = Watcher(lambda previous: Snapshot(1, 0.0), lambda: 1, lambda snapshot: None, 1.0, publish=lambda: broken)
    await watcher.tell()
    await watcher.stop()
    assert watcher.stale_since is None
