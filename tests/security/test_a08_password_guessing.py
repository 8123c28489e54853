"""A08: guessing passwords gets slow after five tries, for names that exist and names that do not, in the same words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.hashers import get_hasher
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.utils import timezone

from access import login
from access.models import LoginTries

LOGIN = "/admin/login/"
FREE, FREE_OF_ADDRESS = 5, 50
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann", password="the right password", is_staff=True)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The moment that logins see, in a list that a test may change."""
    moment = [NOW]
    monkeypatch.setattr(login.timezone, "now", lambda: moment[0])
    return moment


def said(name: str, password: str, address: str = "203.0.113.7", **headers: str) -> tuple[int, str]:
    """Status, and the page without what differs by chance: the token against forgery, and the name that was typed."""
    response = Client(REMOTE_ADDR=address, headers=headers).post(LOGIN, {"username": name, "password": password})
    page = re.sub(r'(csrfmiddlewaretoken" value=|nonce=)"[^"]*"', "", response.content.decode())
    return response.status_code, page.replace(f'value="{name}"', "")


def test_the_right_password_gets_in_and_clears_the_count(ann: User, now: list[datetime]) -> None:
    for _ in range(FREE - 1):
        assert said("ann", "wrong")[0] == 200
    assert said("ann", "the right password")[0] == 302
    for _ in range(FREE - 1):
        assert "wait" not in said("ann", "wrong")[1]
    assert said("ann", "the right password")[0] == 302


def test_after_five_tries_even_the_right_password_has_to_wait(ann: User, now: list[datetime]) -> None:
    for _ in range(FREE):
        assert "Too many tries" not in said("ann", "wrong")[1]
    status, page = said("ann", "the right password")
    assert status == 200
    assert "Too many tries with this user name: wait 2 seconds, then try again." in page
    now[0] += timedelta(seconds=2)
    assert said("ann", "the right password")[0] == 302


def test_the_delay_grows_to_a_quarter_of_an_hour() -> None:
    assert [login.delay_s(tries, FREE) for tries in range(1, 9)] == [0, 0, 0, 0, 2, 4, 8, 16]
    assert login.delay_s(10_000, FREE) == 900


def test_a_thousand_guesses_take_days(ann: User, now: list[datetime]) -> None:
    begun, tried = now[0], 0
    while tried < 100:
        wait_s = login.take("ann", "203.0.113.7", now[0])
        if wait_s:
            now[0] += timedelta(seconds=wait_s)
        else:
            tried += 1
    assert now[0] - begun > timedelta(hours=20)


def test_who_does_not_exist_is_treated_as_who_does(ann: User, now: list[datetime]) -> None:
    User.objects.create_user("off", password="the right password", is_staff=True, is_active=False)
    User.objects.create_user("guest", password="the right password")
    for _ in range(FREE + 2):
        answers = {said(name, "wrong") for name in ("ann", "nobody", "off", "guest")}
        assert len(answers) == 1
    assert "Too many tries" in answers.pop()[1]


def test_who_does_not_exist_costs_as_many_hashes(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time itself is not asserted: what takes the time is."""
    counted: list[str] = []
    hasher = type(get_hasher())
    encode = hasher.encode
    monkeypatch.setattr(hasher, "encode", lambda self, *args, **kwargs: counted.append("hash") or encode(self, *args, **kwargs))
    costs = []
    for name in ("ann", "nobody"):
        counted.clear()
        said(name, "wrong")
        costs.append(len(counted))
    assert costs[0] == costs[1] > 0


def test_another_address_is_counted_by_itself(ann: User, now: list[datetime]) -> None:
    for _ in range(FREE + 1):
        said("ann", "wrong")
    assert said("ann", "the right password", address="203.0.113.8")[0] == 302
    assert said("ann", "the right password")[0] == 200


def test_one_address_does_not_try_all_names(now: list[datetime]) -> None:
    for number in range(FREE_OF_ADDRESS):
        assert login.take(f"name{number}", "203.0.113.7", now[0]) == 0
    assert login.take("another", "203.0.113.7", now[0]) > 0
    assert login.take("another", "203.0.113.8", now[0]) == 0


def test_a_right_guess_between_pays_for_no_wrong_ones(ann: User, now: list[datetime]) -> None:
    for _ in range(FREE_OF_ADDRESS):
        login.take("victim", "203.0.113.7", now[0])
        login.take("mine", "203.0.113.7", now[0])
        login.forget("mine", "203.0.113.7")
        now[0] += timedelta(minutes=16)
    assert login.take("victim", "203.0.113.7", now[0]) == 0  # this one has just waited
    assert login.take("victim", "203.0.113.7", now[0]) > 0


def test_names_of_other_case_and_forged_proxies_are_no_way_round(ann: User, now: list[datetime], settings: Any) -> None:
    for name in ("ann", "Ann", "ANN", "aNn", "anN"):
        said(name, "wrong", **{"X-Forwarded-For": f"198.51.100.{len(name)}"})
    assert "Too many tries" in said("ann", "the right password", **{"X-Forwarded-For": "198.51.100.99"})[1]


def test_many_tries_at_once_are_counted_before_they_are_looked_at(ann: User, now: list[datetime], monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    check = User.check_password

    def checked(user: User, password: str) -> bool:
        looked.append(LoginTries.objects.get(digest=login._counts("ann", "203.0.113.7")[0].digest).tries)
        return check(user, password)

    monkeypatch.setattr(User, "check_password", checked)
    request = RequestFactory().post(LOGIN, REMOTE_ADDR="203.0.113.7")
    authenticate(request, username="ann", password="wrong")
    authenticate(request, username="ann", password="wrong")
    assert looked == [1, 2]


def test_what_is_a_day_old_is_forgotten_and_the_table_is_bounded(now: list[datetime], monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        login.take("ann", "203.0.113.7", now[0])
    assert login.take("ann", "203.0.113.7", now[0]) > 0
    now[0] += timedelta(days=1, seconds=1)
    assert login.take("ann", "203.0.113.7", now[0]) == 0
    monkeypatch.setattr(login, "_MAX_ROWS", 10)
    for number in range(40):
        now[0] += timedelta(seconds=1)
        login.take(f"name{number}", f"203.0.113.{number}", now[0])
    assert LoginTries.objects.count() <= 12


def test_no_names_and_addresses_are_kept(now: list[datetime]) -> None:
    login.take("ann", "203.0.113.7", timezone.now())
    assert not any(b"ann" in bytes(row.digest) for row in LoginTries.objects.all())
    assert {field.name for field in LoginTries._meta.fields} == {"digest", "tries", "last_at", "blocked_until"}
