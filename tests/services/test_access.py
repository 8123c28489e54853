"""Keys of programs and tokens of people: shown once, stored as digests."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils import timezone

from access import keys, services
from access.models import ApiKey, PersonalToken, Team

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="search")


def test_only_a_digest_is_stored(team: Team) -> None:
    row, plaintext = services.create_api_key(name="bot", team=team)
    stored = ApiKey.objects.get()
    assert plaintext.startswith("sk-llmc-")
    assert bytes(stored.digest) == keys.digest(settings.API_KEY_PEPPER, plaintext.encode())
    assert plaintext not in " ".join(str(getattr(stored, field.attname)) for field in ApiKey._meta.concrete_fields)
    assert plaintext.startswith(stored.prefix)
    assert len(stored.prefix) < len(plaintext) - 30
    assert (stored.scopes, stored.allowed_models, row.pk) == (["chat", "models"], None, stored.pk)


def test_two_keys_differ(team: Team) -> None:
    assert len({services.create_api_key(name="bot", team=team)[1] for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"name": ""}, "name"),
        ({"scopes": ["chat", "root"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"allowed_models": []}, "allowed_models"),
        ({"allowed_models": [""]}, "allowed_models"),
        ({"allowed_models": [7]}, "allowed_models"),
        ({"allowed_models": [f"m{number}" for number in range(1001)]}, "allowed_models"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
        ({"max_concurrency": 2**70}, "max_concurrency"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expires_at"),
    ],
)
def test_bad_values_stand_on_their_field(team: Team, fields: dict[str, object], at: str) -> None:
    with pytest.raises(ValidationError) as refused:
        services.create_api_key(**{"name": "bot", "team": team, **fields})
    assert list(refused.value.error_dict) == [at]
    assert not ApiKey.objects.exists()


def test_update_changes_what_it_may(team: Team) -> None:
    row, _ = services.create_api_key(name="bot", team=team)
    services.update_api_key(row, {"allowed_models": ["a", "b", "a"], "scopes": ["usage", "chat"], "requests_per_minute": 5})
    row.refresh_from_db()
    assert (row.allowed_models, row.scopes, row.requests_per_minute) == (["a", "b"], ["chat", "usage"], 5)


@pytest.mark.parametrize("change", [{"digest": b"x" * 32}, {"revoked_at": None}, {"team": None}])
def test_update_touches_nothing_else(team: Team, change: dict[str, object]) -> None:
    row, _ = services.create_api_key(name="bot", team=team)
    with pytest.raises(ValidationError) as refused:
        services.update_api_key(row, change)
    assert list(refused.value.error_dict) == list(change)


def test_an_expired_key_can_still_be_renamed(team: Team) -> None:
    row, _ = services.create_api_key(name="bot", team=team)
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    row.refresh_from_db()
    services.update_api_key(row, {"name": "old bot", "expires_at": row.expires_at})
    assert ApiKey.objects.get().name == "old bot"


def test_revoking_twice_keeps_the_first_moment(team: Team) -> None:
    row, _ = services.create_api_key(name="bot", team=team)
    services.revoke_api_key(row)
    first = ApiKey.objects.get().revoked_at
    services.revoke_api_key(row)
    assert first is not None
    assert ApiKey.objects.get().revoked_at == first


def test_a_personal_token_is_stored_as_a_digest_and_revoked() -> None:
    user = User.objects.create_user("ada")
    token, plaintext = services.create_personal_token(user, "laptop")
    assert plaintext.startswith("llmc-pat-")
    assert bytes(PersonalToken.objects.get().digest) == services.digest_of(plaintext)
    services.revoke_personal_token(token)
    assert PersonalToken.objects.get().revoked_at is not None
    with pytest.raises(ValidationError):
        services.create_personal_token(user, "late", expires_at=timezone.now())
