"""The page and the route of stored secrets: each says whether it opens and under which key, and none is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from core.secrets import KekAway
from providers import decrypt_health
from providers.models import Provider, ProviderKey
from providers.vault import key_ring
from tests.gateway_config.rows import a_provider, a_provider_key

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLANTED = "sk-planted-secret-that-no-page-shows"
PAGE, ROUTE = "/admin/decrypt-health/", "/api/v1/llm/secrets/health"
Keks = Callable[[dict[int, Any]], None]
pytestmark = pytest.mark.django_db


class AwayKek:
    """A key at a service that does not answer."""

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        raise KekAway("the service does not answer; try again later")

    unwrap = wrap

    def version(self, wrapped: bytes) -> str:
        return "v3"


@pytest.fixture
def keks(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keks]:
    """Sets the key ring; a text stands for a key at a service that is away."""
    monkeypatch.setattr("providers.kek.build", lambda text: AwayKek())

    def put(keys: dict[int, Any]) -> None:
        settings.KEY_ENCRYPTION_KEYS = keys
        key_ring.cache_clear()

    put({1: OLD})
    yield put
    key_ring.cache_clear()


@pytest.fixture
def rest(db: None) -> APIClient:
    client = APIClient()
    client.force_authenticate(User.objects.create_superuser("rest"))
    return client


def states(rest: APIClient) -> dict[str, tuple[Any, str]]:
    """Name of a secret → its key and its state."""
    return {row["name"]: (row["key"], row["state"]) for row in rest.get(ROUTE).json()["results"]}


def test_each_secret_says_whether_it_opens_and_under_which_key(keks: Keks, rest: APIClient, root: Client) -> None:
    provider = a_provider()
    a_provider_key(provider, "sk-vendor-secret-old1")
    damaged, moved = (a_provider_key(provider, f"sk-vendor-secret-{name}") for name in ("dama", "move"))
    keks({3: NEW})
    a_provider_key(provider, "sk-vendor-secret-lost")
    keks({1: OLD, 2: NEW})
    a_provider_key(provider, "sk-vendor-secret-new1")
    ProviderKey.objects.filter(pk=damaged.pk).update(secret=b"")
    ProviderKey.objects.filter(pk=moved.pk).update(secret=ProviderKey.objects.get(last4="old1").secret)
    assert states(rest) == {
        "openai-main …old1": (1, "opens"),
        "openai-main …dama": (None, "does_not_open"),
        "openai-main …move": (1, "does_not_open"),
        "openai-main …lost": (3, "does_not_open"),
        "openai-main …new1": (2, "opens"),
    }
    found = rest.get(ROUTE).json()
    assert (found["total"], found["by_key"], found["damaged"], found["current_key"]) == (5, {"1": 2, "2": 1, "3": 1}, 1, 2)
    assert all(bool(row["problem"]) is (row["state"] != "opens") for row in found["results"])
    page = root.get(PAGE).content.decode()
    assert page.count("does not open") == 3
    assert "add key 3 to KEY_ENCRYPTION_KEYS" in page
    assert "Under key 2 (current)" in page


def test_a_changed_origin_shows(keks: Keks, rest: APIClient) -> None:
    a_provider_key(a_provider(), "sk-vendor-secret-0001")
    Provider.objects.update(base_url="https://elsewhere.example/v1")
    assert set(states(rest).values()) == {(1, "does_not_open")}


def test_a_key_that_is_away_is_no_damage(keks: Keks, rest: APIClient, root: Client) -> None:
    a_provider_key(a_provider(), "sk-vendor-secret-0001")
    keks({1: "vault:llmcontrol"})
    (row,) = rest.get(ROUTE).json()["results"]
    assert (row["state"], row["key_version"], row["problem"]) == ("away", "v3", "the service does not answer; try again later.")
    assert "its key is away" in root.get(PAGE).content.decode()


def test_no_secret_is_shown_and_nothing_changes(keks: Keks, rest: APIClient, root: Client) -> None:
    key = a_provider_key(a_provider(), PLANTED)
    before = list(ProviderKey.objects.values())
    answers = root.get(PAGE).content + rest.get(ROUTE).content
    for window in range(len(PLANTED) - 11):
        assert PLANTED[window : window + 12].encode() not in answers
    assert bytes(key.secret).hex().encode() not in answers
    assert list(ProviderKey.objects.values()) == before


def test_a_look_opens_a_page_and_no_more(keks: Keks, root: Client, rest: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decrypt_health, "PAGE_ROWS", 2)
    provider = a_provider()
    for number in range(5):
        a_provider_key(provider, f"sk-vendor-secret-{number:04}")
    seen = [row["id"] for page in (1, 2, 3) for row in rest.get(ROUTE, {"page": page}).json()["results"]]
    assert sorted(seen) == sorted(str(pk) for pk in ProviderKey.objects.values_list("pk", flat=True))
    for page in ("", "0", "-1", "x", "²", "9" * 30):
        assert rest.get(ROUTE, {"page": page}).json()["errors"][0]["attr"] == "page", page
        assert "Page 1 of 3" in root.get(PAGE, {"page": page}).content.decode(), page
    assert rest.get(ROUTE, {"page": "99"}).json()["page"] == 3
    assert "Page 2 of 3" in root.get(PAGE, {"page": "2"}).content.decode()


def test_nothing_stored(keks: Keks, root: Client, rest: APIClient) -> None:
    assert "No secret is stored." in root.get(PAGE).content.decode()
    assert rest.get(ROUTE).json()["results"] == []


def test_who_may_look(keks: Keks, staff: Callable[..., Client]) -> None:
    assert staff("providers.view_provider").get(PAGE).status_code == 403
    assert staff("providers.view_providerkey", username="other").get(PAGE).status_code == 200
