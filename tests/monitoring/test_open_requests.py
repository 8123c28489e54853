"""Which requests are under way: told by each process while somebody watches, out of its own journal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.clock import FrozenClock
from monitoring import open_requests
from monitoring.journal import Journal
from monitoring.models import OpenRequest, OpenRequestsWanted
from monitoring.open_requests import EVERY_S, Teller
from monitoring.pairing import Books, Unfinished
from monitoring.usage import Drainer, replay
from tests.monitoring.records import ended, opened, settled

pytestmark = pytest.mark.django_db
BEGUN = 1_800_000_000.0


def unfinished(name: str, attempt: int = 1) -> Unfinished:
    return Unfinished((1, 0), BEGUN, opened(name, attempt, started_at=BEGUN + attempt))


def watched(seconds: float = 30) -> None:
    OpenRequestsWanted.objects.update_or_create(pk=1, defaults={"until": datetime.fromtimestamp(BEGUN + seconds, UTC)})


def told() -> list[tuple[str, int]]:
    return list(OpenRequest.objects.order_by("request_id").values_list("request_id", "attempt"))


def test_books_know_what_has_begun_and_not_ended() -> None:
    books = Books()
    books.take(1, [(0, [opened("req_1"), opened("req_2"), settled("req_1"), ended("req_1")]), (9, [settled("req_2"), opened("req_2", 2)])])
    (only,) = books.open_requests(10)
    assert (only.opened.request_id, only.opened.attempt, only.began_at) == ("req_2", 2, opened("req_2").started_at)
    books.take(1, [(20, [opened("req_3")])])
    assert [each.opened.request_id for each in books.open_requests(1)] == ["req_2"], "of many the longest"


def test_it_is_told_while_somebody_watches(django_assert_num_queries: Callable[..., Any]) -> None:
    clock = FrozenClock(BEGUN)
    teller = Teller("journal-1", clock)
    with django_assert_num_queries(1):
        teller.step([unfinished("req_1")])
    assert told() == []
    watched()
    clock.advance(EVERY_S)
    teller.step([unfinished("req_1")])
    assert told() == [("req_1", 1)]
    row = OpenRequest.objects.get()
    assert (row.started_at.timestamp(), row.token, row.streamed) == (BEGUN, "journal-1", opened("req_1").streamed)
    with django_assert_num_queries(0):
        teller.step([unfinished("req_2")])
    clock.advance(EVERY_S)
    teller.step([unfinished("req_1", 2), unfinished("req_2")])
    assert told() == [("req_1", 2), ("req_2", 1)]
    clock.advance(60)
    teller.step([unfinished("req_1", 2)])
    assert told() == [], "nobody watches any more"


def test_when_nothing_is_under_way_it_is_said_at_once_and_then_no_more(django_assert_num_queries: Callable[..., Any]) -> None:
    teller = Teller("journal-1", FrozenClock(BEGUN))
    watched()
    teller.step([unfinished("req_1")])
    Teller("journal-2", FrozenClock(BEGUN)).step([unfinished("req_2")])
    teller.step([])
    assert told() == [("req_2", 1)], "others speak for themselves"
    with django_assert_num_queries(0):
        teller.step([])


def test_what_a_process_said_before_it_died_is_taken_back_with_its_journal(tmp_path: Path) -> None:
    clock = FrozenClock(BEGUN)
    journal = Journal(tmp_path, 10**6, clock)
    drainer = Drainer(journal, 1.0, clock)
    watched()
    journal.write(opened("req_1", started_at=BEGUN))
    assert drainer.drain()
    assert told() == [("req_1", 1)]
    journal.close()
    replay(tmp_path)
    assert told() == []


def test_what_nobody_takes_back_goes_by_and_by() -> None:
    watched()
    Teller("gone", FrozenClock(BEGUN - 7200)).step([])
    OpenRequest.objects.create(token="gone", told_at=_at(-7200), started_at=_at(-7200), request_id="req_0", attempt=1, streamed=False)
    Teller("journal-1", FrozenClock(BEGUN)).step([unfinished("req_1")])
    assert told() == [("req_1", 1)]
    assert not open_requests.told(_at(60)).exists()


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(BEGUN, UTC) + timedelta(seconds=seconds)
