"""Who came, who was refused, how often; and who is said to have done what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from rest_framework.test import APIClient

from access.models import Team
from access.services import create_personal_token
from core.clock import FrozenClock
from llmcontrol.middleware import address_of
from monitoring.audit_people import Sampler
from monitoring.models import AuditEvent
from tests.audit.conftest import trail

pytestmark = pytest.mark.django_db


def last() -> AuditEvent:
    return AuditEvent.objects.latest("sequence")


def token_of(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(user, 'test')[1]}")
    return client


def test_login_logout_and_a_wrong_password(client: Client) -> None:
    User.objects.create_superuser("ann", password="a long password")
    form = {"username": "ann", "password": "not it", "next": "/admin/"}
    client.post("/admin/login/", form)
    assert (last().action, json.loads(last().changes)) == ("login_failed", {"username": [None, "ann"]})
    client.post("/admin/login/", {**form, "password": "a long password"})
    assert (last().action, last().actor, last().source, last().address) == ("login", "ann", "admin", "127.0.0.1")
    client.post("/admin/logout/")
    assert (last().action, last().object_label) == ("logout", "ann")
    assert "not it" not in "".join(AuditEvent.objects.values_list("changes", flat=True))
    assert trail() == [("created", "ann"), ("login_failed", ""), ("login", "ann"), ("logout", "ann")], "counting is no event"


def test_a_change_names_who_made_it_and_the_request(client: Client) -> None:
    root = User.objects.create_superuser("root")
    answer = token_of(root).post("/api/v1/llm/teams", {"name": "a"}, format="json", headers={"x-request-id": "from-client-1"})
    assert answer.headers["x-request-id"] == "from-client-1"
    assert (last().actor, last().actor_id, last().source, last().request_id) == ("root", str(root.pk), "api", "from-client-1")
    client.force_login(root)
    answer = client.post("/admin/access/team/add/", {"name": "b", "is_active": "on", "price_adjustment_bp": "0"})
    assert (last().actor, last().source, last().request_id) == ("root", "admin", answer.headers["x-request-id"])
    answer = client.get("/api/info", headers={"x-request-id": "bad id \x1b[31m"})
    assert len(answer.headers["x-request-id"]) == 32
    Team.objects.create(name="c")
    assert (last().source, last().request_id) == ("shell", "")


def test_refusals_are_recorded() -> None:
    client = token_of(User.objects.create_user("ann"))
    assert client.get("/api/v1/llm/teams").status_code == 403
    assert (last().action, last().actor) == ("refused", "ann")
    assert json.loads(last().changes) == {"request": [None, "GET /api/v1/llm/teams"], "status": [None, 403]}
    client.credentials(HTTP_AUTHORIZATION="Token llmc-pat-wrong")
    assert client.get("/api/v1/llm/teams").status_code == 401
    assert (last().action, last().actor) == ("login_failed", "")
    count = AuditEvent.objects.count()
    assert APIClient().get("/api/v1/llm/teams").status_code == 401
    assert AuditEvent.objects.count() == count, "who shows nothing is told to log in, no more"


def test_who_knocks_often_is_counted(settings: Any) -> None:
    settings.AUDIT_REFUSALS_PER_MINUTE = 3
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Token llmc-pat-wrong")
    for _ in range(10):
        client.get("/api/v1/llm/teams")
    assert AuditEvent.objects.count() == 3


def test_the_next_one_says_how_many_were_left_out() -> None:
    clock = FrozenClock()
    sampler = Sampler(2, clock)
    assert [sampler.take("a") for _ in range(5)] == [0, 0, None, None, None]
    assert sampler.take("b") == 3
    clock.advance(60)
    assert [sampler.take("a"), sampler.take("a"), sampler.take("a")] == [0, 0, None]


def test_a_crowd_is_bounded_too() -> None:
    sampler = Sampler(2, FrozenClock())
    assert sum(sampler.take(f"address {number}") is not None for number in range(1_000)) == 40


def test_usage_as_csv_is_an_export() -> None:
    client = token_of(User.objects.create_superuser("root"))
    client.get("/api/v1/usage/stats", {"group_by": "team"}, headers={"accept": "text/csv"})
    assert (last().action, json.loads(last().changes)["query"]) == ("exported", [None, {"group_by": ["team"]}])
    count = AuditEvent.objects.count()
    client.get("/api/v1/usage/stats")
    assert AuditEvent.objects.count() == count


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.9, 10.0.0.2", "198.51.100.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "nonsense\x1b", "10.0.0.1"),
    ],
)
def test_the_address_is_the_clients(settings: Any, peer: str, forwarded: str, found: str) -> None:
    import ipaddress

    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    assert address_of(RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer)) == found
