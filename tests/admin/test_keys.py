"""API keys and personal tokens: shown once, on the page that made them, and revoked for good."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from access.models import ApiKey, PersonalToken
from access.services import create_personal_token, digest_of
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

ADD_KEY = "/admin/access/apikey/add/"
ADD_TOKEN = "/admin/access/personaltoken/add/"


def _key_form(world: World, **changes: object) -> dict[str, object]:
    fields = {"name": "app", "team": world.team.pk, "scopes": ["chat", "models"], "expires_at_0": "", "expires_at_1": ""}
    return {**fields, "requests_per_minute": "60", **changes}


def _shown(page: str) -> str:
    found = re.search(r'<code id="credential"[^>]*>([^<]+)</code>', page)
    assert found, "the page shows no credential"
    return found[1]


def test_a_new_key_is_shown_once_and_works(root: Client, world: World) -> None:
    response = root.post(ADD_KEY, _key_form(world))
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]
    page = response.content.decode()
    plaintext = _shown(page)
    row = ApiKey.objects.get(name="app")
    assert plaintext.startswith("sk-llmc-")
    assert bytes(row.digest) == digest_of(plaintext)
    assert (row.requests_per_minute, row.scopes, row.allowed_models) == (60, ["chat", "models"], None)
    assert row.created_by == User.objects.get(username="root")
    assert f"Bearer {plaintext}" in page.replace("&#x27;", "'")
    assert "gpt-4o" in page


def test_the_key_is_nowhere_else(root: Client, world: World) -> None:
    plaintext = _shown(root.post(ADD_KEY, _key_form(world)).content.decode())
    row = ApiKey.objects.get(name="app")
    assert not root.cookies.get("messages")
    assert not [session for session in Session.objects.all() if plaintext in str(session.get_decoded())]
    assert not [entry for entry in LogEntry.objects.all() if plaintext in f"{entry.object_repr}{entry.change_message}"]
    for url in (reverse("admin:access_apikey_changelist"), reverse("admin:access_apikey_change", args=[row.pk]), "/admin/"):
        assert plaintext not in root.get(url).content.decode()


def test_the_key_may_be_kept_to_some_models(root: Client, world: World) -> None:
    root.post(ADD_KEY, _key_form(world, allowed_models=["gpt-4o"]))
    row = ApiKey.objects.get(name="app")
    assert row.allowed_models == ["gpt-4o"]
    refused = root.post(ADD_KEY, _key_form(world, allowed_models=["no-such-model"]))
    assert refused.context["adminform"].form.errors["allowed_models"]


def test_what_the_service_refuses_stands_on_its_field(root: Client, world: World) -> None:
    before = ApiKey.objects.count()
    response = root.post(ADD_KEY, _key_form(world, expires_at_0="2020-01-01", expires_at_1="00:00:00"))
    assert response.status_code == 200
    assert response.context["adminform"].form.errors["expires_at"]
    assert root.post(ADD_KEY, _key_form(world, scopes=[])).context["adminform"].form.errors["scopes"]
    assert ApiKey.objects.count() == before


def test_changing_a_key_keeps_its_team_digest_and_lost_aliases(root: Client, world: World) -> None:
    ApiKey.objects.filter(pk=world.key.pk).update(allowed_models=["gone-model"])
    url = reverse("admin:access_apikey_change", args=[world.key.pk])
    assert root.post(url, _key_form(world, name="renamed", allowed_models=["gone-model"])).status_code == 302
    world.key.refresh_from_db()
    assert (world.key.name, world.key.allowed_models) == ("renamed", ["gone-model"])
    assert bytes(world.key.digest) == digest_of(world.key_plaintext)


def test_revoking_is_for_good(root: Client, world: World) -> None:
    url = reverse("admin:access_apikey_revoke", args=[world.key.pk])
    assert "cannot be undone" in root.get(url).content.decode()
    assert root.post(url).status_code == 302
    world.key.refresh_from_db()
    assert world.key.revoked_at is not None
    assert url not in root.get(reverse("admin:access_apikey_change", args=[world.key.pk])).content.decode()


def test_only_a_revoked_key_can_be_deleted(root: Client, world: World) -> None:
    url = reverse("admin:access_apikey_delete", args=[world.key.pk])
    assert root.post(url, {"post": "yes"}).status_code == 403
    root.post(reverse("admin:access_apikey_revoke", args=[world.key.pk]))
    assert root.post(url, {"post": "yes"}).status_code == 302
    assert not ApiKey.objects.exists()


def test_a_team_with_living_keys_is_not_deleted(root: Client, world: World) -> None:
    root.post(reverse("admin:access_team_delete", args=[world.team.pk]), {"post": "yes"})
    assert ApiKey.objects.filter(pk=world.key.pk).exists()


def test_a_personal_token_is_shown_once(root: Client, world: World) -> None:
    owner = User.objects.get(username="owner")
    response = root.post(ADD_TOKEN, {"name": "ci", "user": owner.pk, "expires_at_0": "", "expires_at_1": ""})
    plaintext = _shown(response.content.decode())
    row = PersonalToken.objects.get(name="ci")
    assert row.user == owner
    assert bytes(row.digest) == digest_of(plaintext)
    assert plaintext not in root.get(reverse("admin:access_personaltoken_change", args=[row.pk])).content.decode()


def test_staff_make_and_see_only_their_own_tokens(staff: Callable[..., Client], world: World) -> None:
    client = staff("access.add_personaltoken", "access.view_personaltoken", "access.change_personaltoken")
    boss = User.objects.create_superuser("boss")
    theirs, _ = create_personal_token(boss, "power")
    client.post(ADD_TOKEN, {"name": "mine", "user": boss.pk, "expires_at_0": "", "expires_at_1": ""})
    assert PersonalToken.objects.get(name="mine").user.username == "staff"
    page = client.get(reverse("admin:access_personaltoken_changelist")).content.decode()
    assert "mine" in page
    assert "power" not in page
    assert client.post(reverse("admin:access_personaltoken_revoke", args=[theirs.pk])).status_code == 404
    theirs.refresh_from_db()
    assert theirs.revoked_at is None


def test_a_team_has_limits_and_a_bad_one_stands_on_its_field(root: Client, world: World) -> None:
    url = reverse("admin:access_team_change", args=[world.team.pk])
    fields = {"name": world.team.name, "is_active": "on", "requests_per_minute": "60", "tokens_per_minute": "", "max_concurrency": "0"}
    fields["price_adjustment_bp"] = "500"
    assert set(root.post(url, fields).context["adminform"].form.errors) == {"max_concurrency"}
    root.post(url, {**fields, "max_concurrency": "4"})
    world.team.refresh_from_db()
    assert (world.team.requests_per_minute, world.team.tokens_per_minute, world.team.max_concurrency) == (60, None, 4)
    assert world.team.price_adjustment_bp == 500
    assert set(root.post(url, {**fields, "max_concurrency": "4", "price_adjustment_bp": "-10001"}).context["adminform"].form.errors) == {
        "price_adjustment_bp"
    }
