"""The page of a batch of tasks, as the server writes it; how it goes on by itself is in tests/browser/test_task_batch.py."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tasks.models import Task
from tasks.service import Submitter, read, submit

VILE = '<img src=x onerror="alert(1)">'


@pytest.fixture
def batch(root: Client) -> list[Task]:
    return submit([read({"type": "custom", "prompt": f"hi {number}"}) for number in range(3)], Submitter(user=User.objects.get()))


def page_of(batch: object) -> str:
    return reverse("admin:tasks_task_batch", args=[batch])


def test_it_has_every_task_with_its_state_and_result(root: Client, batch: list[Task]) -> None:
    Task.objects.filter(pk=batch[0].pk).update(status="completed", result={"text": VILE})
    Task.objects.filter(pk=batch[1].pk).update(status="failed", error_message="No model took it.")
    text = root.get(page_of(batch[0].batch)).content.decode()
    order = [text.index(f'data-task="{task.public_id}"') for task in batch]
    assert order == sorted(order)
    for said in ('data-count="completed">1<', 'data-count="failed">1<', 'data-count="queued">1<', "No model took it."):
        assert said in text, said
    assert VILE not in text
    assert page_of(batch[0].batch) in root.get(reverse("admin:tasks_task_change", args=[batch[0].pk])).content.decode()


def test_it_is_for_those_who_may_see_tasks(root: Client, staff: Callable[..., Client], batch: list[Task]) -> None:
    url = page_of(batch[0].batch)
    assert staff("access.view_team").get(url).status_code == 403
    assert staff("tasks.view_task", username="other").get(url).status_code == 200
    assert root.get(page_of(uuid.uuid4())).status_code == 404
