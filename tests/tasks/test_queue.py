"""The queue in the database: order, claims, fences, leases. Time is a number that the test holds."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidRequest
from gateway.idempotency import KeyReused
from tasks import queue, service
from tasks.models import Task, TaskEvent
from tasks.queue import Ending
from tasks.service import QueueFull, Submission, Submitter, TooLate
from tasks.signals import submitted, submitting
from tasks.states import Status

pytestmark = pytest.mark.django_db
NOW = 1_800_000_000.0
LEASE_S = 20.0


def asked(**fields: Any) -> Submission:
    return service.read({"type": "custom", "prompt": "hi", **fields})


def submit(*asked_for: Submission, at: float = NOW, **options: Any) -> list[Task]:
    return service.submit(asked_for or [asked()], Submitter(), clock=lambda: at, **options)


def claim(most: int = 10, at: float = NOW, worker: str = "w") -> list[queue.Claim]:
    return queue.claim(worker, most, at, LEASE_S)


def story(task: Task) -> list[str]:
    return list(TaskEvent.objects.filter(task=task).values_list("status", flat=True))


def test_a_task_from_end_to_end() -> None:
    (task,) = submit()
    (claimed,) = claim()
    assert (claimed.task.pk, claimed.fence, claimed.task.attempts) == (task.pk, 1, 1)
    assert claim() == []
    assert queue.end(claimed, Ending(Status.COMPLETED, result={"text": "yes"}, request_id="req_1"), NOW + 3)
    task.refresh_from_db()
    assert (task.status, task.result, task.request_id) == ("completed", {"text": "yes"}, "req_1")
    assert (task.started_at, task.finished_at) == (queue.moment(NOW), queue.moment(NOW + 3))
    assert story(task) == ["queued", "running", "completed"]


def test_an_attempt_that_is_not_counted_leaves_the_task_as_if_it_had_not_begun() -> None:
    submit()
    (claimed,) = claim()
    assert queue.end(claimed, Ending(Status.FAILED, error_code="upstream_paused", again_at=NOW + 5, counted=False), NOW + 1)
    assert claim(at=NOW + 4) == []
    (again,) = claim(at=NOW + 6)
    assert (again.task.attempts, again.fence) == (1, 2)


def test_higher_priorities_come_first_and_low_ones_come_in_their_time(settings: Any) -> None:
    settings.TASK_AGING_S = 600
    low, normal = submit(asked(priority="low"))[0], submit(asked(priority="normal"))[0]
    urgent, high = submit(asked(priority="urgent"), at=NOW + 5)[0], submit(asked(priority="high"), at=NOW + 5)[0]
    assert [each.task.pk for each in claim(at=NOW + 6)] == [urgent.pk, high.pk, normal.pk, low.pk]
    low, late_urgent = submit(asked(priority="low"), at=NOW + 10)[0], submit(asked(priority="urgent"), at=NOW + 10 + 1801)[0]
    assert [each.task.pk for each in claim(at=NOW + 2000)] == [low.pk, late_urgent.pk]


def test_a_claim_takes_no_more_than_there_is_room_for_and_nothing_before_its_time() -> None:
    submit(asked(), asked(), asked())
    assert len(claim(2)) == 2
    (claimed,) = claim(2)
    assert queue.end(claimed, Ending(Status.FAILED, error_code="x", error_message="no", again_at=NOW + 30), NOW)
    assert claim(at=NOW + 29) == []
    (again,) = claim(at=NOW + 30)
    assert (again.task.pk, again.fence, again.task.attempts) == (claimed.task.pk, 2, 2)


def test_who_has_lost_its_lease_can_write_nothing() -> None:
    submit(asked(config={"max_attempts": 2}))
    (first,) = claim(worker="frozen")
    assert queue.reap(NOW + LEASE_S - 1) == (0, 0)
    assert queue.reap(NOW + LEASE_S + 1) == (1, 0)
    (second,) = claim(at=NOW + 30, worker="other")
    assert queue.renew([first], NOW + 30, LEASE_S) == []
    assert not queue.end(first, Ending(Status.COMPLETED, result={"text": "late"}), NOW + 31)
    assert queue.renew([second], NOW + 40, LEASE_S) == [second]
    assert queue.reap(NOW + 55) == (0, 0)
    assert queue.end(second, Ending(Status.COMPLETED, result={"text": "mine"}), NOW + 56)
    task = Task.objects.get()
    assert (task.status, task.result) == ("completed", {"text": "mine"})
    assert story(task) == ["queued", "running", "queued", "running", "completed"]


def test_what_was_put_back_and_nobody_has_begun_is_taken_back_by_who_works_on_it() -> None:
    submit()
    (claimed,) = claim(worker="frozen")
    assert queue.reap(NOW + LEASE_S + 1) == (1, 0)
    assert queue.renew([claimed], NOW + 30, LEASE_S) == [claimed]
    task = Task.objects.get()
    assert (task.status, task.worker, task.fence, task.lease_until) == ("running", "frozen", 1, NOW + 30 + LEASE_S)
    assert claim(at=NOW + 31, worker="other") == []
    assert queue.reap(NOW + 49) == (0, 0)
    assert queue.end(claimed, Ending(Status.COMPLETED, result={}), NOW + 50)
    assert not queue.end(claimed, Ending(Status.COMPLETED, result={}), NOW + 51), "nothing ends twice"
    assert story(task) == ["queued", "running", "queued", "running", "completed"]


@pytest.mark.parametrize("meanwhile", ["begun", "begun and put back", "tried again", "cancelled", "failed"])
def test_what_somebody_else_has_had_to_do_with_is_not_taken_back(meanwhile: str) -> None:
    submit(asked(config={"max_attempts": 1 if meanwhile == "failed" else 5}))
    (first,) = claim(worker="frozen")
    queue.reap(NOW + LEASE_S + 1)
    if meanwhile == "cancelled":
        assert queue.cancel(first.task.pk, NOW + 25)
    elif meanwhile != "failed":
        (second,) = claim(at=NOW + 25, worker="other")
        assert second.fence == 3
        if meanwhile == "begun and put back":
            assert queue.reap(NOW + 50) == (1, 0)
        elif meanwhile == "tried again":
            assert queue.end(second, Ending(Status.FAILED, error_code="x", again_at=NOW + 40), NOW + 30)
    before = Task.objects.values().get()
    assert queue.renew([first], NOW + 51, LEASE_S) == []
    assert Task.objects.values().get() == before


def test_what_its_own_ending_put_back_is_not_taken_back() -> None:
    """Also where that was written and nobody said so, and another has tried since."""
    submit()
    (first,) = claim()
    assert queue.end(first, Ending(Status.FAILED, error_code="x", again_at=NOW + 5), NOW + 1)
    assert queue.renew([first], NOW + 2, LEASE_S) == []
    (second,) = claim(at=NOW + 6)
    assert queue.end(second, Ending(Status.FAILED, error_code="x", again_at=NOW + 9), NOW + 7)
    assert (second.fence, Task.objects.get().fence) == (2, 2)
    assert queue.renew([first], NOW + 8, LEASE_S) == []


def test_several_endings_are_written_together_each_by_its_own_fence() -> None:
    submit(asked(), asked(), asked())
    lost, done, again = claim()
    assert queue.cancel(lost.task.pk, NOW + 1)
    outcome = Ending(Status.COMPLETED, result={"text": "yes"})
    later = Ending(Status.FAILED, error_code="x", error_message="Not now.", again_at=NOW + 30, counted=False)
    written = queue.end_all({lost: outcome, done: outcome, again: later}, NOW + 2)
    assert [row.pk for row in written] == [done.task.pk, again.task.pk]
    assert [Task.objects.get(pk=each.task.pk).status for each in (lost, done, again)] == ["cancelled", "completed", "queued"]
    assert TaskEvent.objects.get(task=again.task.pk, status="queued", attempt=0, note="Not now.")
    assert queue.end_all({lost: outcome, done: outcome, again: later}, NOW + 3) == []


def test_a_task_whose_workers_keep_dying_fails() -> None:
    submit(asked(config={"max_attempts": 1}))
    claim()
    assert queue.reap(NOW + 60) == (1, 0)
    task = Task.objects.get()
    assert (task.status, task.error_code) == ("failed", "worker_lost")
    assert "1 attempts" in task.error_message


def test_what_nobody_begins_in_time_expires() -> None:
    submit(asked(config={"deadline": 10}))
    assert queue.reap(NOW + 9) == (0, 0)
    assert queue.reap(NOW + 11) == (0, 1)
    assert Task.objects.get().status == "expired"
    assert claim(at=NOW + 12) == []


def test_cancelling() -> None:
    waiting, running = submit(asked(), asked())
    running_claim = next(each for each in claim() if each.task.pk == running.pk)
    assert queue.cancel(running.pk, NOW + 1)
    assert queue.renew([running_claim], NOW + 2, LEASE_S) == []
    assert not queue.end(running_claim, Ending(Status.COMPLETED, result={}), NOW + 2)
    assert not queue.cancel(running.pk, NOW + 3)
    assert queue.cancel(waiting.pk, NOW + 3)
    assert set(Task.objects.values_list("status", flat=True)) == {"cancelled"}


def test_a_full_queue_takes_nothing_and_a_batch_is_all_or_nothing(settings: Any) -> None:
    settings.MAX_QUEUE_SIZE = 3
    submit(asked(), asked())
    with pytest.raises(QueueFull, match="2 tasks wait"):
        submit(asked(), asked())
    assert Task.objects.count() == 2
    submit(asked())
    with pytest.raises(QueueFull):
        submit()
    claim(1)
    submit()


def test_a_deadline_that_cannot_be_met_is_refused_with_the_expected_wait() -> None:
    for number in range(6):
        submit(at=NOW - 70 + number)
    for claimed in claim(6):
        queue.end(claimed, Ending(Status.COMPLETED, result={}), NOW)  # six a minute
    submit(asked(), asked(), asked())
    with pytest.raises(TooLate, match="about 30 s") as refused:
        submit(asked(config={"deadline": 29}))
    assert refused.value.retry_after_s == 30
    submit(asked(config={"deadline": 31}))


def test_one_idempotency_key_makes_one_task() -> None:
    first = submit(asked(), asked(), idempotency_key="k")
    again = submit(asked(), asked(), idempotency_key="k")
    assert sorted(row.pk for row in again) == sorted(row.pk for row in first)
    assert Task.objects.count() == 2
    with pytest.raises(KeyReused):
        submit(asked(prompt="other"), idempotency_key="k")
    submit(asked(), idempotency_key="other")


def test_one_key_that_comes_twice_at_once_makes_one_task_for_a_person_too(django_user_model: Any) -> None:
    """Nothing in the database tells tasks of people apart by their key, so it is the lock that has to."""
    by, inner = Submitter(user=django_user_model.objects.create_user("ann")), list[Task]()

    def comes_between(**signal: Any) -> None:
        if not inner:
            inner.append(Task())
            inner[:] = service.submit([asked()], by, clock=lambda: NOW, idempotency_key="k")

    submitting.connect(comes_between)
    try:
        outer = service.submit([asked()], by, clock=lambda: NOW, idempotency_key="k")
    finally:
        submitting.disconnect(comes_between)
    assert [row.pk for row in outer] == [row.pk for row in inner]
    assert Task.objects.count() == 1


def test_submissions_are_told_after_the_commit(django_capture_on_commit_callbacks: Any) -> None:
    told: list[list[Task]] = []

    def listener(tasks: list[Task], **signal: Any) -> None:
        told.append(tasks)

    submitted.connect(listener)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            rows = submit()
            assert told == []
        assert told == [rows]
    finally:
        submitted.disconnect(listener)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"type": "poetry"}, "type"),
        ({}, "type"),
        ({"type": "custom", "prompt": " "}, "prompt"),
        ({"type": "custom", "prompt": "x", "priority": "asap"}, "priority"),
        ({"type": "custom", "prompt": "x", "colour": 1}, "colour"),
        ({"type": "custom", "prompt": 1}, "prompt"),
        ({"type": "custom", "prompt": "x", "config": {"timeout": -1}}, "config.timeout"),
        ({"type": "custom", "prompt": "x", "config": {"timeout": 1e9}}, "config.timeout"),
        ({"type": "custom", "prompt": "x", "data": {"text": "unused"}}, "data"),
        ({"type": "translation", "data": {"text": "x"}}, "data"),
        ({"type": "category_match", "data": {"text": "x", "categories": []}}, "data"),
        ({"type": "custom", "prompt": "x", "callback_url": "https://example.com/" + "x" * 2000}, "callback_url"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        service.read(body, where="tasks.7.")
    assert refused.value.param == f"tasks.7.{param}"


def test_a_batch_that_comes_again_is_answered_in_its_order() -> None:
    """Priorities do not shuffle it."""
    batch = asked(prompt="a", priority="low"), asked(prompt="b", priority="urgent"), asked(prompt="c", priority="low")
    first = submit(*batch, idempotency_key="k")
    assert [row.prompt for row in first] == [row.prompt for row in submit(*batch, idempotency_key="k")] == ["a", "b", "c"]


def test_the_queue_stands_for_as_long_as_its_first_task_is_due() -> None:
    assert queue.standing(NOW) == (0, 0.0)
    submit(asked(), asked())
    submit(at=NOW + 5)
    assert queue.standing(NOW + 7) == (3, 7.0)
    first, *_ = claim(at=NOW + 7)
    assert queue.standing(NOW + 8) == (0, 0.0)
    queue.end(first, Ending(Status.QUEUED, again_at=NOW + 100), NOW + 9)
    assert queue.standing(NOW + 99) == (0, 0.0), "it waits for its time, not for a worker"
    assert queue.standing(NOW + 130) == (1, 30.0)
