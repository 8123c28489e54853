"""Bodies from the queue into their table, out of it one at a time, and away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from django.core.management import call_command
from django.db import DatabaseError

from core.clock import FrozenClock
from monitoring import bodies
from monitoring.bodies import PRUNE_INTERVAL_S, BodyStore
from monitoring.body_queue import AttemptHeaders, Bodies, BodyQueue, Headers
from monitoring.journal import Journal
from monitoring.models import AuditEvent, RequestBody, RequestLog
from monitoring.usage import Drainer

pytestmark = pytest.mark.django_db
BEGUN = 1_800_000_000.0
HEADERS = msgspec.json.encode(Headers([("accept", "*/*")], [], [AttemptHeaders(1, 200, [])]))
TEXT = b'{"messages":[{"content":"' + b"hello " * 2000 + b'"}]}'


def bodies_of(name: str, **changes: object) -> Bodies:
    return Bodies(name, BEGUN, "k1", TEXT, b"\xff\0 answer", len(TEXT), 9, HEADERS)._replace(**changes)  # type: ignore[arg-type]


def test_what_waits_is_entered_compressed_and_once() -> None:
    queue = BodyQueue(65_536, 2**20)
    store = BodyStore(queue, 7, FrozenClock(BEGUN))
    for number in range(45):
        queue.put(bodies_of(f"req_{number}"))
    queue.put(bodies_of("req_0"))
    store.step()
    assert RequestBody.objects.count() == 45
    assert queue.first(1) == []
    row = RequestBody.objects.get(request_id="req_0")
    assert len(bytes(row.request)) < len(TEXT) / 10
    assert (row.request_bytes, row.key_id, row.started_at) == (len(TEXT), "k1", datetime.fromtimestamp(BEGUN, UTC))


def test_headers_are_kept_beside_them_and_of_older_rows_there_are_none() -> None:
    queue, request = BodyQueue(65_536, 2**20), RequestLog(request_id="req_1")
    queue.put(bodies_of("req_1"))
    BodyStore(queue, 7, FrozenClock(BEGUN)).step()
    found = bodies.headers(request)
    assert found == msgspec.json.decode(HEADERS, type=Headers)
    RequestBody.objects.update(headers=None)
    assert bodies.headers(request) is None
    assert bodies.headers(RequestLog(request_id="req_2")) is None


def test_what_cannot_be_entered_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = BodyQueue(65_536, 2**20)
    store = BodyStore(queue, 7, FrozenClock(BEGUN))
    queue.put(bodies_of("req_1"))
    with monkeypatch.context() as away:
        away.setattr(RequestBody.objects, "bulk_create", lambda *rows, **options: (_ for _ in ()).throw(DatabaseError("away")))
        with pytest.raises(DatabaseError):
            store.step()
    store.step()
    assert RequestBody.objects.get().request_id == "req_1"


def test_the_old_ones_go_and_nothing_else() -> None:
    clock = FrozenClock(BEGUN)
    store = BodyStore(None, 7, clock)
    for days in (6, 8):
        RequestBody.objects.create(
            request_id=f"req_{days}",
            started_at=datetime.fromtimestamp(BEGUN, UTC) - timedelta(days=days),
            request=b"",
            response=b"",
            request_bytes=0,
            response_bytes=0,
        )
    for _ in range(2):  # until nothing is left of them
        store.step()
    assert [row.request_id for row in RequestBody.objects.all()] == ["req_6"]
    clock.advance(2 * 86_400)
    store.step()
    assert not RequestBody.objects.exists()


def test_between_two_looks_it_does_not_ask_the_database(django_assert_num_queries: object) -> None:
    clock = FrozenClock(BEGUN)
    store = BodyStore(BodyQueue(10, 10), 7, clock)
    store.step()
    with django_assert_num_queries(0):  # type: ignore[operator]
        store.step()
    clock.advance(PRUNE_INTERVAL_S)
    with django_assert_num_queries(1):  # type: ignore[operator]
        store.step()


def test_the_drainer_enters_them(tmp_path: Path) -> None:
    queue, clock = BodyQueue(65_536, 2**20), FrozenClock(BEGUN)
    drainer = Drainer(Journal(tmp_path, 2**20, clock), 0.5, clock, bodies=BodyStore(queue, 7, clock))
    queue.put(bodies_of("req_1"))
    assert drainer.drain()
    assert RequestBody.objects.count() == 1


def test_reading_one_is_in_the_audit_trail() -> None:
    log = RequestLog.objects.create(request_id="req_1", started_at=datetime.fromtimestamp(BEGUN, UTC), dialect="openai", status_code=200)
    assert bodies.read(log) is None
    assert not AuditEvent.objects.filter(action="body_read").exists()
    queue = BodyQueue(65_536, 2**20)
    queue.put(bodies_of("req_1"))
    BodyStore(queue, 7, FrozenClock(BEGUN)).step()
    found = bodies.read(log)
    assert found == bodies_of("req_1")
    assert AuditEvent.objects.get(action="body_read").object_label == "req_1"
    assert bodies.shown(found.response, found.response_bytes) == {"text": "\ufffd\ufffd answer", "bytes": 9, "cut": False}


@pytest.mark.parametrize(("options", "left"), [((), ["req_new"]), (("--all-bodies",), [])])
def test_prune_logs(options: tuple[str, ...], left: list[str]) -> None:
    queue = BodyQueue(65_536, 2**20)
    for name, at in (("req_new", datetime.now(UTC).timestamp()), ("req_old", 0.0)):
        queue.put(bodies_of(name, started_at=at))
    BodyStore(queue, 36_500, FrozenClock(BEGUN)).step()
    out = StringIO()
    call_command("prune_logs", *options, stdout=out)
    assert f"Deleted the bodies of {2 - len(left)} requests." in out.getvalue()
    assert [row.request_id for row in RequestBody.objects.all()] == left
