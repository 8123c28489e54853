"""A16: a session is new at login, and over at logout, with a new password and for a user who is switched off."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from tests.conftest import ROOT
from tests.security.access_fixtures import Tenants

PASSWORD = "a long enough password"
pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return User.objects.create_superuser("ann", password=PASSWORD)


def logged_in(password: str = PASSWORD) -> Client:
    client = Client()
    assert client.post("/admin/login/", {"username": "ann", "password": password}).status_code == 302
    return client


def is_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200 and client.get("/api/info").status_code == 200


def test_a_session_that_somebody_else_chose_is_replaced_at_login(ann: User) -> None:
    attacker = Client()
    attacker.get("/admin/login/")
    attacker.session.save()
    planted = attacker.session.session_key
    victim = Client()
    victim.cookies[configured.SESSION_COOKIE_NAME] = planted
    victim.post("/admin/login/", {"username": "ann", "password": PASSWORD})
    assert is_in(victim)
    assert victim.session.session_key != planted
    stolen = Client()
    stolen.cookies[configured.SESSION_COOKIE_NAME] = planted
    assert not is_in(stolen)


@pytest.mark.parametrize("secure", [True, False])
def test_the_cookies_flags(ann: User, settings: Any, secure: bool) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = secure
    client = Client()
    client.get("/admin/login/")
    client.post("/admin/login/", {"username": "ann", "password": PASSWORD})
    session, forgery = client.cookies[configured.SESSION_COOKIE_NAME], client.cookies[configured.CSRF_COOKIE_NAME]
    assert (bool(session["secure"]), bool(session["httponly"]), session["samesite"]) == (secure, True, "Lax")
    assert (bool(forgery["secure"]), forgery["samesite"]) == (secure, "Lax")
    assert "SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.boolean(" in (ROOT / "llmcontrol/settings.py").read_text()


def test_logout_ends_it_on_the_server(ann: User) -> None:
    client = logged_in()
    kept = client.cookies[configured.SESSION_COOKIE_NAME].value
    client.post("/admin/logout/")
    again = Client()
    again.cookies[configured.SESSION_COOKIE_NAME] = kept
    assert not is_in(again)
    assert not Session.objects.filter(session_key=kept).exists()


def test_a_session_ends_so_long_after_its_login_however_busy_it_was(ann: User) -> None:
    client = logged_in()
    session = Session.objects.get(session_key=client.cookies[configured.SESSION_COOKIE_NAME].value)
    assert 0 < configured.SESSION_COOKIE_AGE <= 336 * 3600
    assert abs((session.expire_date - timezone.now()).total_seconds() - configured.SESSION_COOKIE_AGE) < 120
    assert is_in(client)
    assert Session.objects.get(pk=session.pk).expire_date == session.expire_date, "a request made it longer"
    Session.objects.filter(pk=session.pk).update(expire_date=timezone.now() - timedelta(seconds=1))
    assert not is_in(client)


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_a_login_leads_to_no_other_site(ann: User, elsewhere: str) -> None:
    answer = Client().post("/admin/login/", {"username": "ann", "password": PASSWORD, "next": elsewhere})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


def test_a_new_password_ends_all_other_sessions(ann: User) -> None:
    here, there = logged_in(), logged_in()
    new = "another long password"
    here.post("/admin/password_change/", {"old_password": PASSWORD, "new_password1": new, "new_password2": new})
    assert is_in(here)
    assert not is_in(there)


def test_a_password_that_an_administrator_set_ends_them_too(ann: User) -> None:
    client = logged_in()
    ann.set_password("another long password")
    ann.save()
    assert not is_in(client)


def test_a_user_who_is_switched_off_is_out_at_once_with_session_and_tokens(ann: User) -> None:
    client, rest = logged_in(), Tenants.rest(None, ann)  # type: ignore[arg-type]
    assert is_in(client)
    assert rest.get("/api/info").status_code == 200
    User.objects.filter(pk=ann.pk).update(is_active=False)
    assert not is_in(client)
    assert rest.get("/api/info").status_code == 401


def test_who_leaves_a_team_sees_nothing_of_it_with_the_next_request(tenants: Tenants) -> None:
    manager = tenants.ours.people["manager"]
    rest, admin = tenants.rest(manager), tenants.admin(manager)
    assert len(rest.get("/api/v1/llm/keys").json()["results"]) == 1
    manager.team_roles.all().delete()
    assert rest.get("/api/v1/llm/keys").status_code == 403
    assert admin.get("/admin/access/apikey/").status_code == 403
