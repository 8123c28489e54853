"""The keys of a provider over REST: added, rotated, weighed, dropped, and never told."""

from __future__ import annotations

from collections.abc import Callable

from rest_framework.test import APIClient

from providers.models import Provider, ProviderKey
from tests.rest.conftest import SECRET, World, attrs
from tests.rest.provider_body import BODY, URL


def test_several_keys(root: APIClient) -> None:
    config = {"api_keys": [SECRET, "sk-planted-vendor-key-abcdefgh5678"]}
    shown = root.post(URL, {**BODY, "config": config}).json()
    assert [key["last4"] for key in shown["keys"]] == ["1234", "5678"]


def test_a_new_key_by_patch_replaces_the_old_and_is_shown_by_its_last_four(root: APIClient) -> None:
    shown = root.post(URL, BODY).json()
    changed = root.patch(f"{URL}/{shown['id']}", {"config": {"api_key": "sk-planted-vendor-key-new9999"}}).json()
    assert [key["last4"] for key in changed["keys"]] == ["9999"]
    assert ProviderKey.objects.count() == 1


def test_another_host_needs_the_key_again(root: APIClient) -> None:
    url = f"{URL}/{root.post(URL, BODY).json()['id']}"
    assert attrs(root.patch(url, {"config": {"base_url": "https://evil.example/v1"}})) == {"config.base_url"}
    assert root.get(url).json()["config"]["base_url"] == "https://api.openai.com/v1"
    moved = root.patch(url, {"config": {"base_url": "https://other.example/v1", "api_key": SECRET}})
    assert moved.status_code == 200


def test_keys_are_dropped_only_when_it_is_said(root: APIClient, world: World) -> None:
    server = {"name": "server", "provider_type": "openai_compatible", "config": {"base_url": "https://a.example/v1", "api_key": SECRET}}
    url = f"{URL}/{root.post(URL, server).json()['id']}"
    elsewhere = {"config": {"base_url": "https://b.example/v1"}}
    assert attrs(root.patch(url, elsewhere)) == {"config.base_url"}
    assert len(root.get(url).json()["keys"]) == 1
    assert attrs(root.patch(url, {**elsewhere, "drop_keys": "perhaps"})) == {"drop_keys"}
    moved = root.patch(url, {**elsewhere, "drop_keys": True})
    assert (moved.status_code, moved.json()["keys"], moved.json()["config"]) == (200, [], elsewhere["config"])
    assert "drop_keys" not in moved.json()


def test_a_new_provider_has_no_keys_to_drop(root: APIClient) -> None:
    assert attrs(root.post(URL, {"name": "e", "provider_type": "echo", "drop_keys": True})) == {"drop_keys"}
    assert not Provider.objects.exists()


def test_dropping_keys_is_deleting_them(allowed: Callable[..., APIClient], world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    assert allowed("providers.change_provider").patch(url, {"drop_keys": True}).status_code == 403
    assert world.provider.keys.count() == 1


def test_a_single_key_is_deleted(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    added = root.post(f"{url}/keys", {"api_key": "sk-another-vendor-key-abcdefgh5678"}).json()
    assert root.delete(f"{url}/keys/{world.key.id}").status_code == 204
    assert [key["id"] for key in root.get(url).json()["keys"]] == [added["id"]]
    assert root.delete(f"{url}/keys/{world.key.id}").status_code == 404


def test_no_answer_holds_the_secret(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    another = "sk-another-vendor-key-abcdefgh5678"
    answers = [
        root.post(URL, BODY),
        root.get(URL),
        root.get(url),
        root.patch(url, {"config": {"api_key": SECRET}}),
        root.post(f"{url}/keys", {"api_key": another}),
        root.post(f"{url}/keys", {"api_key": f"{another} "}),
        root.post(f"{url}/keys", {"apikey": another}),
        root.post(f"{url}/test"),
        root.post(f"{url}/disable"),
        root.get("/api/v1/providers"),
        root.get("/api/schema/?format=json"),
    ]
    for answer in answers:
        assert SECRET not in answer.content.decode()
        assert another not in answer.content.decode()


def test_add_rotate_and_disable(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    added = root.post(f"{url}/keys", {"api_key": "sk-another-vendor-key-abcdefgh5678", "name": "spare"})
    assert (added.status_code, set(added.json()), added.json()["last4"]) == (201, {"id", "last4", "state"}, "5678")
    rotated = root.post(f"{url}/keys/{added.json()['id']}/rotate", {"api_key": "sk-another-vendor-key-abcdefgh9999"})
    assert (rotated.status_code, rotated.json()) == (200, {**added.json(), "last4": "9999"})
    assert attrs(root.post(f"{url}/keys/{added.json()['id']}/rotate", {})) == {"api_key"}
    assert attrs(root.post(f"{url}/keys", {"api_key": "x y"})) == {"api_key"}
    assert attrs(root.post(f"{url}/keys", {"api_key": "xy", "weight": 3})) == {"weight"}
    assert root.post(f"{url}/disable").json()["is_active"] is False


def test_a_key_of_another_provider_is_not_found(root: APIClient, world: World) -> None:
    other = root.post(URL, {"name": "other", "provider_type": "echo"}).json()
    for key_id in (world.key.id, "nonsense"):
        assert root.post(f"{URL}/{other['id']}/keys/{key_id}/rotate", {"api_key": "x" * 20}).status_code == 404


def test_a_keys_weight_is_changed(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}/keys/{world.key.id}"
    changed = root.patch(url, {"weight": 3, "name": "main", "is_active": False})
    assert changed.json() == {"id": str(world.key.id), "last4": "1234", "state": "off", "name": "main", "weight": 3}
    assert attrs(root.patch(url, {"weight": 0})) == {"weight"}
    assert attrs(root.patch(url, {"secret": "x"})) == {"secret"}
