"""Events in the database: written with what they tell, seen by whoever may, pruned; tickets that open one socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import transaction
from rest_framework.test import APIClient

from access.models import TeamMember
from access.services import create_personal_token, revoke_personal_token
from core.config import BudgetSpec
from core.errors import NotAuthenticated
from monitoring.signals import breakers_changed, budget_reached
from telling import events, tickets, topics
from telling.models import Event, SocketTicket
from tests.telling.rows import a_key, a_task, a_team, ended

pytestmark = pytest.mark.django_db


def test_each_change_of_a_task_is_told_in_its_transaction() -> None:
    key = a_key(a_team())
    ended(a_task(key))
    told = events.after(0, 100)
    assert [json.loads(each.text)["data"]["status"] for each in told] == ["queued", "running", "completed"]
    assert {each.topics for each in told} == {frozenset({topics.ALL_TASKS, f"task.key.{key.pk}"})}
    assert events.held() == (told[0].seq, told[-1].seq)
    assert [each.seq for each in events.after(told[0].seq, 1)] == [told[1].seq]
    with transaction.atomic():
        a_task(key)
        transaction.set_rollback(True)
    assert len(events.after(0, 100)) == 3


def test_the_text_of_an_event_is_its_row() -> None:
    moments = [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC)]
    data = {"sentence": '预算 "a" \\ 80 %', "value": 1.5, "more": [None, True, {}]}
    events.add(Event(type="alert", topics=["a", "b"], data=data, at=at) for at in moments)
    told = events.after(0, 10)
    assert [json.loads(each.text) for each in told] == [
        {"seq": each.seq, "type": "alert", "at": at, "data": data}
        for each, at in zip(told, ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000060Z"), strict=True)
    ]


def test_breakers_and_budgets_are_told_to_those_whom_they_concern() -> None:
    team = a_team()
    key = a_key(team)
    breakers_changed.send(None, process="p", provider_id="1", provider="main", open=["model x"])
    for scope, holder in (("team", team.pk), ("key", key.pk), ("user", "ann")):
        spec = BudgetSpec("b", "The budget", scope, str(holder), "money", 100, "month", "USD")
        budget_reached.send(None, budget=spec, percent=80, spent=81)
    provider, *budgets = events.after(0, 100)
    assert provider.topics == {topics.ALL_PROVIDERS}
    assert json.loads(provider.text)["data"]["open_breakers"] == ["model x"]
    assert [each.topics for each in budgets] == [
        {topics.ALL_ALERTS, f"alert.team.{team.pk}"},
        {topics.ALL_ALERTS, f"alert.key.{key.pk}", f"alert.team.{team.pk}"},
        {topics.ALL_ALERTS},
    ]
    assert json.loads(budgets[0].text)["data"]["percent"] == 80


def test_a_person_hears_what_they_may_see() -> None:
    nobody, viewer, member = (User.objects.create_user(name) for name in ("nobody", "viewer", "member"))
    viewer.user_permissions.add(Permission.objects.get(codename="view_task"), Permission.objects.get(codename="view_provider"))
    team = a_team()
    TeamMember.objects.create(team=team, user=member, role="viewer")
    assert topics.of_person(nobody) == {f"task.user.{nobody.pk}"}
    assert topics.of_person(viewer) == {f"task.user.{viewer.pk}", topics.ALL_TASKS, topics.ALL_PROVIDERS}
    assert topics.of_person(member) == {f"task.user.{member.pk}", f"alert.team.{team.pk}"}


def test_old_events_go_and_the_newest_stays() -> None:
    now = datetime.now(UTC)
    events.add(Event(type="task", topics=[], data={}, at=now - timedelta(hours=hours)) for hours in (30, 26, 25, 2))
    assert events.prune(now, 86_400) == 3
    assert events.prune(now + timedelta(days=9), 86_400) == 0
    assert Event.objects.count() == 1


def test_a_ticket_is_for_one_socket_and_lasts_as_long_as_its_token() -> None:
    user = User.objects.create_user("ann")
    token, plaintext = create_personal_token(user, "script")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {plaintext}")
    answer = client.post("/api/v1/ws-ticket")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    ticket = answer.json()["ticket"]
    assert ticket.encode() not in bytes(SocketTicket.objects.get().digest)
    holder = tickets.redeem(ticket)
    with pytest.raises(NotAuthenticated):
        tickets.redeem(ticket)
    assert tickets.topics_of(holder) == {f"task.user.{user.pk}"}
    revoke_personal_token(token)
    with pytest.raises(NotAuthenticated):
        tickets.topics_of(holder)


def test_a_ticket_of_a_session_ends_with_it_and_with_its_user() -> None:
    user = User.objects.create_user("ann")
    client = APIClient()
    client.force_login(user)
    first, second = (tickets.redeem(client.post("/api/v1/ws-ticket").json()["ticket"]) for _ in range(2))
    tickets.topics_of(first)
    client.logout()
    with pytest.raises(NotAuthenticated):
        tickets.topics_of(first)
    User.objects.update(is_active=False)
    with pytest.raises(NotAuthenticated):
        tickets.topics_of(second)


def test_a_ticket_that_is_too_old_opens_nothing() -> None:
    user = User.objects.create_user("ann")
    ticket = tickets.make(user, token=create_personal_token(user, "script")[0], session_key="")
    SocketTicket.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(NotAuthenticated):
        tickets.redeem(ticket)
    with pytest.raises(ValueError):
        tickets.make(user, token=None, session_key="")
