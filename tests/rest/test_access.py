"""Teams, API keys and personal tokens over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from access import keys
from access.models import ApiKey, PersonalToken, Team
from access.services import create_personal_token
from tests.rest.conftest import World, attrs, client_of

TEAMS, KEYS = "/api/v1/llm/teams", "/api/v1/llm/keys"


def test_a_team_round_trips(root: APIClient) -> None:
    response = root.post(TEAMS, {"name": "search"})
    assert response.status_code == 201
    none = {"requests_per_minute": None, "tokens_per_minute": None, "max_concurrency": None}
    assert response.json() == {
        "id": str(Team.objects.get().id),
        "name": "search",
        "is_active": True,
        "rate_limit": none,
        "price_adjustment_bp": 0,
        "scopes": None,
        "max_key_days": None,
    }
    assert attrs(root.post(TEAMS, {"name": "search"})) == {"name"}
    assert attrs(root.post(TEAMS, {"name": "x" * 121})) == {"name"}
    assert attrs(root.post(TEAMS, ["search"])) == {"non_field_errors"}


def test_a_team_has_limits_and_a_bad_one_is_named(root: APIClient) -> None:
    team = root.post(TEAMS, {"name": "search", "rate_limit": {"requests_per_minute": 60, "max_concurrency": 4}}).json()
    assert team["rate_limit"] == {"requests_per_minute": 60, "tokens_per_minute": None, "max_concurrency": 4}
    url = f"{TEAMS}/{team['id']}"
    assert root.patch(url, {"rate_limit": {"max_concurrency": None}}).json()["rate_limit"]["requests_per_minute"] == 60
    for value in (0, -1, 1.5, "NaN", 2**31):
        assert attrs(root.patch(url, {"rate_limit": {"tokens_per_minute": value}})) == {"rate_limit.tokens_per_minute"}
    assert attrs(root.patch(url, {"rate_limit": {"per_day": 1}})) == {"rate_limit.per_day"}
    assert root.patch(url, {"price_adjustment_bp": -10_000}).json()["price_adjustment_bp"] == -10_000
    for value in (-10_001, 100_001, 0.5, "much"):
        assert attrs(root.patch(url, {"price_adjustment_bp": value})) == {"price_adjustment_bp"}
    for scopes in (True, 1, "chat", {"chat": 1}, [], ["root"], [1], [{}], [None]):
        assert attrs(root.patch(url, {"scopes": scopes})) == {"scopes"}, scopes


def test_a_key_is_shown_once_and_stored_as_a_digest(root: APIClient, world: World) -> None:
    expires_at = (timezone.now() + timedelta(days=1)).replace(microsecond=0)
    body = {
        "name": "bot 2",
        "team": str(world.team.id),
        "scopes": ["chat", "usage"],
        "models": ["echo"],
        "rate_limit": {"requests_per_minute": 60, "tokens_per_minute": 1000, "max_concurrency": 4},
        "source_networks": ["10.1.0.0/16"],
        "expires_at": expires_at.isoformat().replace("+00:00", "Z"),
    }
    response = root.post(KEYS, body)
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    shown = response.json()
    row = ApiKey.objects.get(name="bot 2")
    assert {name: shown[name] for name in body} == body
    assert shown["id"] == str(row.id)
    assert shown["key"].startswith(shown["prefix"])
    assert bytes(row.digest) == keys.digest(settings.API_KEY_PEPPER, shown["key"].encode())
    assert row.created_by is not None
    assert row.created_by.username == "root"
    for later in (
        root.get(f"{KEYS}/{row.id}"),
        root.get(KEYS),
        root.patch(f"{KEYS}/{row.id}", {"name": "b"}),
        root.post(f"{KEYS}/{row.id}/revoke"),
    ):
        assert later.status_code == 200
        assert shown["key"] not in later.content.decode()
        assert '"key"' not in later.content.decode()


def test_defaults(root: APIClient, world: World) -> None:
    shown = root.post(KEYS, {"name": "bot", "team": str(world.team.id)}).json()
    assert (shown["scopes"], shown["models"], shown["expires_at"]) == (["chat", "models"], None, None)
    assert shown["rate_limit"] == {"requests_per_minute": None, "tokens_per_minute": None, "max_concurrency": None}


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"name": None}, {"name"}),
        ({"team": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001"}, {"team"}),
        ({"team": "search"}, {"team"}),
        ({"scopes": []}, {"scopes"}),
        ({"scopes": ["chat", "root"]}, {"scopes.1"}),
        ({"scopes": "chat"}, {"scopes"}),
        ({"models": []}, {"models"}),
        ({"models": [None]}, {"models.0"}),
        ({"rate_limit": {"requests_per_minute": 0}}, {"rate_limit.requests_per_minute"}),
        ({"rate_limit": {"tokens_per_minute": 2**31}}, {"rate_limit.tokens_per_minute"}),
        ({"rate_limit": {"per_day": 1}}, {"rate_limit.per_day"}),
        ({"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at"}),
        ({"key": "sk-llmc-of-my-own-choice"}, {"key"}),
        ({"digest": "x"}, {"digest"}),
        ({"revoked_at": None}, {"revoked_at"}),
        ({"created_by": 1}, {"created_by"}),
    ],
)
def test_a_bad_key_names_the_field(root: APIClient, world: World, change: dict[str, Any], at: set[str]) -> None:
    assert attrs(root.post(KEYS, {"name": "bot", "team": str(world.team.id), **change})) == at
    assert ApiKey.objects.count() == 1


def test_patch_changes_only_what_it_names(root: APIClient, world: World) -> None:
    url = f"{KEYS}/{world.api_key.id}"
    before = root.get(url).json()
    changed = root.patch(url, {"rate_limit": {"requests_per_minute": 2}, "models": ["echo"]}).json()
    assert changed == {**before, "rate_limit": {**before["rate_limit"], "requests_per_minute": 2}, "models": ["echo"]}
    assert root.patch(url, {"rate_limit": {"requests_per_minute": None}, "models": None}).json() == before
    other = Team.objects.create(name="other")
    assert attrs(root.patch(url, {"team": str(other.id)})) == {"team"}


@pytest.mark.parametrize(("method", "suffix", "status"), [("delete", "", 204), ("post", "/revoke", 200)])
def test_both_ways_revoke_and_keep_the_row(root: APIClient, world: World, method: str, suffix: str, status: int) -> None:
    url = f"{KEYS}/{world.api_key.id}"
    for _ in range(2):
        assert getattr(root, method)(url + suffix).status_code == status
    assert root.get(url).json()["revoked_at"] is not None
    assert root.get(f"{KEYS}?revoked=false").json()["results"] == []
    assert len(root.get(f"{KEYS}?revoked=true&team={world.team.id}").json()["results"]) == 1


# Personal tokens ----------------------------------------------------------------------------------------------------


def refused(client: APIClient) -> str:
    response = client.get("/api/info")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Token")
    return str(response.json()["errors"][0]["detail"])


def test_a_token_stops_when_it_is_revoked_or_over_or_its_user_is(db: None) -> None:
    user = User.objects.create_user("ada")
    client = client_of(user)
    assert client.get("/api/info").status_code == 200
    User.objects.update(is_active=False)
    assert "switched off" in refused(client)
    PersonalToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "expired" in refused(client)
    PersonalToken.objects.update(revoked_at=timezone.now())
    assert "revoked" in refused(client)


@pytest.mark.parametrize("header", ["Token ", "Token x", "Token " + "x" * 100_000, "Token \xff", "token", "Token a b"])
def test_nonsense_is_no_token(db: None, header: str) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=header)
    assert "not known" in refused(client)


def test_an_api_key_of_the_data_plane_is_no_token(world: World) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {world.api_key_plaintext}")
    assert "not known" in refused(client)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {create_personal_token(User.objects.create_user('ada'), 't')[1]}")
    refused(client)
