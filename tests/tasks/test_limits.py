"""Bounds over all workers: of a type, and of everything."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import ConfigurationError
from llmcontrol.environment import Environment
from tasks import limits, queue, service
from tasks.engine import Waiting
from tasks.models import Task
from tasks.queue import Ending
from tasks.service import Submitter
from tasks.states import Status

NOW = 1_800_000_000.0


def submit(kind: str, count: int = 1, at: float = NOW) -> list[Task]:
    data = {"text": "x", "target_language": "English"} if kind == "translation" else {}
    body = {"type": kind, "prompt": "hi", "data": data}
    return service.submit([service.read(body) for _ in range(count)], Submitter(), clock=lambda: at)


def claim(most: int = 10, **options: Any) -> list[queue.Claim]:
    return queue.claim("w", most, NOW + 60, 20.0, **options)


@pytest.mark.django_db
def test_a_type_takes_no_more_than_its_places_and_holds_up_no_other(settings: Any) -> None:
    settings.TASK_LIMITS = {"translation": 2}
    submit("translation", 5)
    submit("custom", 3, at=NOW + 1)
    first = claim(4)
    assert [each.task.kind for each in first] == ["translation", "translation", "custom", "custom"]
    assert [each.task.kind for each in claim(4)] == ["custom"]
    assert queue.end(first[0], Ending(Status.COMPLETED, result={}), NOW + 61)
    assert [each.task.kind for each in claim(4)] == ["translation"]


@pytest.mark.django_db
def test_a_bound_on_everything(settings: Any) -> None:
    settings.TASK_LIMITS = {"*": 3, "custom": 2}
    submit("custom", 5)
    submit("translation", 5, at=NOW + 1)
    assert [each.task.kind for each in claim()] == ["custom", "custom", "translation"]
    assert claim() == []


@pytest.mark.django_db
def test_a_place_that_is_left_is_told_to_who_waits_for_it(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Waiting] = []
    monkeypatch.setattr(queue, "distributed", lambda: True)
    monkeypatch.setattr(queue, "enqueue", told.extend)
    settings.TASK_LIMITS = {"translation": 1}
    (running,), (waiting,), _ = submit("translation"), submit("translation", at=NOW + 1), submit("custom")
    told.clear()
    (claimed,) = claim(only=[str(running.pk)])
    assert claim(only=[str(waiting.pk)]) == []
    assert queue.end(claimed, Ending(Status.COMPLETED, result={}), NOW + 61)
    assert [each.task_id for each in told] == [str(waiting.pk)]


@pytest.mark.django_db
def test_whatever_comes_into_the_queue_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Waiting] = []
    monkeypatch.setattr(queue, "enqueue", told.extend)
    (task,) = submit("custom")
    (claimed,) = claim()
    assert queue.end(claimed, Ending(Status.FAILED, error_code="x", again_at=NOW + 90), NOW + 61)
    queue.claim("w", 1, NOW + 90, 20.0)
    assert queue.reap(NOW + 200) == (1, 0)
    assert told == [(str(task.pk), task.rank, after) for after in (0, NOW + 90, NOW + 90)]
    queue.cancel(task.pk, NOW + 201)
    queue.tell_again([str(task.pk)])
    assert len(told) == 3


def test_the_setting_is_read_and_what_is_wrong_with_it_named() -> None:
    known = ("*", "custom")
    assert Environment({"X": "*=500, custom=10"}).bounds("X", known, 1, 1000) == {"*": 500, "custom": 10}
    for wrong in ("poetry=1", "custom=0", "custom", "custom=1001", "custom=x"):
        with pytest.raises(ConfigurationError, match="X: "):
            Environment({"X": wrong}).bounds("X", known, 1, 1000)
    assert limits.ALL == "*"
