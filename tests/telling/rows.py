"""Rows that the tests of this folder begin with."""

from __future__ import annotations

from typing import Any

from access.models import ApiKey, Team
from access.services import create_api_key
from tasks import queue, service
from tasks.models import Task
from tasks.queue import Ending
from tasks.service import Submitter
from tasks.states import Status
from telling import services
from telling.models import Webhook

NOW = 1_800_000_000.0
URL = "https://hooks.example.com/x"


def a_team(name: str = "search", *, secret: bool = True) -> Team:
    team = Team.objects.create(name=name)
    if secret:
        services.new_secret(team)
    return team


def a_key(team: Team) -> ApiKey:
    return create_api_key(name="bot", team=team, scopes=["tasks"])[0]


def a_task(key: ApiKey | None, at: float = NOW, url: str = URL, **fields: Any) -> Task:
    asked = service.read({"type": "custom", "prompt": "hi", "callback_url": url, **fields})
    return service.submit([asked], Submitter(key=key), clock=lambda: at)[0]


def ended(task: Task, ending: Ending | None = None, at: float = NOW) -> None:
    (claimed,) = queue.claim("w", 1, at, 20, only=[str(task.pk)])
    assert queue.end(claimed, ending or Ending(Status.COMPLETED, result={"text": "yes"}), at)


def a_webhook(team: Team | None = None, url: str = URL, at: float = NOW) -> Webhook:
    task = a_task(a_key(team or a_team()), at, url)
    ended(task, at=at)
    return Webhook.objects.get(task=task)
