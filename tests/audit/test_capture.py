"""Every way to change a row is in the trail, in the transaction of the change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import models, transaction
from django.db.models import F

from access.budgets import correct
from access.models import ApiKey, Budget, Team
from access.services import create_api_key, create_personal_token
from monitoring import audit, audit_capture, audit_context
from monitoring.audit_context import Actor
from monitoring.audit_scope import EXEMPT, audited, is_secret
from monitoring.models import AuditEvent
from providers.models import ProviderKey
from providers.services import add_key, create_provider, reset_breaker, rotate_key
from tests.audit.conftest import trail

pytestmark = pytest.mark.django_db
VENDOR_KEY = "sk-planted-vendor-key-abcdefgh1234"


def last() -> AuditEvent:
    return AuditEvent.objects.order_by("-sequence").first()


def changes() -> dict[str, Any]:
    return json.loads(last().changes)


def test_every_model_is_audited_or_says_why_not() -> None:
    """A new model is audited without a word; one that is exempt stands in the list, with a reason."""
    models_of_ours = (model for model in audit_capture.apps.get_models(include_auto_created=True) if model._meta.managed)
    labels = {model._meta.label for model in models_of_ours}
    assert set(EXEMPT) <= labels, "the list names models that are no more"
    assert all(len(reason) > 10 for reason in EXEMPT.values())
    assert {model._meta.label for model in audit_capture.audited_models()} == labels - set(EXEMPT)
    people_edit = {"providers.Provider", "providers.ProviderKey", "models_registry.Price", "access.ApiKey", "auth.User", "auth.Group"}
    assert people_edit <= labels - set(EXEMPT)


@pytest.mark.parametrize("model", audit_capture.audited_models(), ids=lambda model: model._meta.label)
def test_no_audited_model_has_bytes_that_are_shown(model: type[models.Model]) -> None:
    suspicious = [field for field in model._meta.concrete_fields if "password" in field.name or isinstance(field, models.BinaryField)]
    assert all(is_secret(field) for field in suspicious)


def test_models_of_migrations_are_not_audited() -> None:
    from django.db.migrations.loader import MigrationLoader

    old = MigrationLoader(None).project_state(("access", "0001_initial")).apps.get_model("access", "Team")
    assert audited(Team)
    assert not audited(old)


def test_save_create_and_delete() -> None:
    team = Team.objects.create(name="search")
    team.name = "find"
    team.save()
    assert changes() == {"name": ["search", "find"]}
    team.save()
    team.delete()
    assert trail() == [("created", "search"), ("changed", "find"), ("deleted", "find")]
    assert changes()["name"] == ["find", None]


def test_querysets_that_signals_do_not_see() -> None:
    Team.objects.bulk_create([Team(name="a"), Team(name="b")])
    Team.objects.filter(name="a").update(requests_per_minute=5)
    Team.objects.update(requests_per_minute=F("requests_per_minute") + 1)
    assert trail() == [("created", "a"), ("created", "b"), ("changed", "a"), ("changed", "a")]
    assert changes() == {"requests_per_minute": [5, 6]}
    teams = list(Team.objects.order_by("name"))
    for team in teams:
        team.max_concurrency = 3
    Team.objects.bulk_update(teams, ["max_concurrency"])
    Team.objects.all().delete()
    assert sorted(trail()[4:6]) == [("changed", "a"), ("changed", "b")]
    assert sorted(trail()[6:]) == [("deleted", "a"), ("deleted", "b")]


def test_update_through_another_table() -> None:
    team = Team.objects.create(name="search")
    create_api_key(name="bot", team=team)
    ApiKey.objects.filter(team__name="search").update(max_concurrency=9)
    assert changes() == {"max_concurrency": [None, 9]}


def test_update_or_create_that_conflicts() -> None:
    Team.objects.create(name="search")
    Team.objects.bulk_create([Team(name="search")], ignore_conflicts=True)
    assert Team.objects.count() == 1


def test_cascades_and_columns_that_they_empty() -> None:
    user = User.objects.create_superuser("ann")
    team = Team.objects.create(name="search")
    key, _ = create_api_key(name="bot", team=team, created_by=user)
    user.delete()
    emptied = AuditEvent.objects.get(object_type="access.ApiKey", action="changed")
    assert json.loads(emptied.changes) == {"created_by": [user_id := json.loads(emptied.changes)["created_by"][0], None]}
    assert user_id
    team.delete()
    assert ("deleted", str(key)) in trail()


def test_groups_and_permissions_by_name() -> None:
    user, group = User.objects.create_user("ann"), Group.objects.create(name="operators")
    user.groups.add(group)
    assert (last().object_label, changes()) == ("ann", {"groups": [[], ["operators"]]})
    group.user_set.clear()
    assert (last().object_label, changes()) == ("ann", {"groups": [["operators"], []]})
    permission = Permission.objects.get(codename="view_team")
    group.permissions.set([permission])
    assert (last().object_label, changes()) == ("operators", {"permissions": [[], ["access.view_team"]]})
    user.user_permissions.add(permission)
    count = AuditEvent.objects.count()
    user.user_permissions.add(permission)
    assert AuditEvent.objects.count() == count, "nothing changed"


def test_secrets_are_keyed_hashes() -> None:
    provider = create_provider(name="vendor", provider_type="openai", secrets=[VENDOR_KEY])
    key = provider.keys.get()
    rotate_key(key, "sk-another-vendor-key-0123456789")
    before, after = changes()["secret"]
    assert before != after
    assert before.startswith("hmac:")
    team = Team.objects.create(name="search")
    api_key, plaintext = create_api_key(name="bot", team=team)
    user = User.objects.create_user("ann", password="a password that is planted")
    _, token = create_personal_token(user, "script")
    text = " ".join(AuditEvent.objects.values_list("changes", flat=True))
    sealed, digest = bytes(ProviderKey.objects.get().secret), bytes(api_key.digest)
    for planted in (VENDOR_KEY, plaintext, token, "a password that", user.password, sealed.hex(), digest.hex(), repr(digest)):
        assert planted not in text
    assert [label for action, label in trail() if action == "revealed"] == [str(api_key), f"script ({token[:13]}…)"]


def test_what_is_rolled_back_is_not_told() -> None:
    with transaction.atomic():
        Team.objects.create(name="stays")
        with transaction.atomic():
            Team.objects.create(name="goes")
            transaction.set_rollback(True)
    assert trail() == [("created", "stays")]


def test_a_login_is_one_event_and_not_a_change_of_the_user(client: Any) -> None:
    user = User.objects.create_user("ann")
    client.force_login(user)
    assert trail() == [("created", "ann"), ("login", "ann")]


def test_who_when_and_where() -> None:
    with audit_context.acting(lambda: Actor("api", "ann", "7", "192.0.2.1", "req-1")):
        Team.objects.create(name="search")
    event = last()
    assert (event.source, event.actor, event.actor_id, event.address, event.request_id) == ("api", "ann", "7", "192.0.2.1", "req-1")
    Team.objects.create(name="find")
    assert last().source == "shell"


def test_breaker_reset_and_correction_by_a_person() -> None:
    provider = create_provider(name="vendor", provider_type="openai", secrets=[VENDOR_KEY])
    reset_breaker(provider)
    assert list(changes()) == ["breaker_reset_at"]
    budget = Budget.objects.create(team=Team.objects.create(name="search"), kind="requests", limit=100)
    correct(budget, -3, "counted twice")
    assert (last().action, changes()) == ("corrected", {"amount": [None, -3], "note": [None, "counted twice"]})


def test_long_values_are_cut_with_a_digest() -> None:
    team = Team.objects.create(name="search")
    create_api_key(name="bot", team=team)
    field = Team._meta.get_field("name")
    shown = audit_capture._shown(field, "x" * 5_000)
    assert len(shown) < 2_200
    assert "5000 characters, sha256" in shown


@pytest.mark.parametrize("nasty", ["a\r\nb", "\x1b[31mred", "line\u2028break", "\ud800", "\x00"])
def test_text_is_one_printable_line(nasty: str) -> None:
    """A52: nothing that ends a line, moves a cursor or cannot be encoded."""
    audit.record("refused", changes={"request": (None, nasty)})
    shown = audit.one_line(nasty * 100, 64)
    assert shown.isprintable()
    assert len(shown) == 64
    assert last().changes.isascii()
    assert last().changes.isprintable()
    with audit_context.acting(lambda: Actor("api", nasty, "", nasty, nasty)):
        audit.record("refused")
    event = last()
    assert all(text.isprintable() for text in (event.actor, event.address, event.request_id))


def test_many_rows_in_one_statement() -> None:
    before = AuditEvent.objects.count()
    provider = create_provider(name="vendor", provider_type="openai")
    add_key(provider, VENDOR_KEY)
    Team.objects.bulk_create([Team(name=f"team {number:04}") for number in range(1_200)])
    Team.objects.update(is_active=False)
    sequences = list(AuditEvent.objects.order_by("sequence").values_list("sequence", flat=True))
    assert sequences == list(range(1, before + 2 + 1_200 * 2 + 1))
