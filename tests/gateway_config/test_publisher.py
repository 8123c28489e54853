"""Every way to change a configuration row raises the version, together with the change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, models, transaction
from django.db.migrations import Migration

from access.models import ApiKey, PersonalToken, Team
from core.errors import ConfigurationError
from gateway.config.models import ConfigVersion
from gateway.config.publisher import current_version, install, make_way
from models_registry.models import LLMModel, Price
from monitoring.models import RequestLog
from providers.models import Provider, ProviderKey
from tests.gateway_config.rows import a_model, a_price, a_provider, a_provider_key, a_team, an_api_key, utc

pytestmark = pytest.mark.django_db


def one_of(model: type[models.Model]) -> models.Model:
    makers: dict[type[models.Model], Callable[[], models.Model]] = {
        Provider: a_provider,
        ProviderKey: lambda: a_provider_key(a_provider()),
        LLMModel: lambda: a_model(a_provider()),
        Price: lambda: a_price(a_model(a_provider()), utc(2026)),
        Team: a_team,
        ApiKey: lambda: an_api_key(a_team()),
    }
    return makers[model]()


def by_save(row: models.Model) -> None:
    row.save(update_fields=["valid_to"] if isinstance(row, Price) else None)


def by_update(row: models.Model) -> None:
    type(row).objects.filter(pk=row.pk).update(id=models.F("id"))


def by_plain_sql(row: models.Model) -> None:
    table = connection.ops.quote_name(row._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET id = id")


# A cascade is several statements, and on Postgres each counts, even one that meets no row.
def by_delete(row: models.Model) -> None:
    row.delete()


def by_queryset_delete(row: models.Model) -> None:
    type(row).objects.all().delete()


MODELS = [Provider, ProviderKey, LLMModel, Price, Team, ApiKey]


@pytest.mark.parametrize("change", [by_save, by_update, by_plain_sql])
@pytest.mark.parametrize("model", MODELS)
def test_every_change_raises_the_version_by_one(model: type[models.Model], change: Callable[[models.Model], None]) -> None:
    row = one_of(model)
    before = current_version()
    change(row)
    assert current_version() == before + 1


@pytest.mark.parametrize("delete", [by_delete, by_queryset_delete])
@pytest.mark.parametrize("model", MODELS)
def test_every_removal_raises_the_version(model: type[models.Model], delete: Callable[[models.Model], None]) -> None:
    row = one_of(model)
    before = current_version()
    delete(row)
    assert current_version() > before


@pytest.mark.parametrize("model", [Provider, Team])
def test_a_new_row_raises_the_version_by_one(model: type[models.Model]) -> None:
    before = current_version()
    one_of(model)
    assert current_version() == before + 1


def test_bulk_operations_raise_the_version() -> None:
    before = current_version()
    Team.objects.bulk_create([Team(name="a"), Team(name="b")])
    created = current_version()
    Team.objects.update(is_active=False)
    assert before < created < current_version()


def test_a_change_that_is_rolled_back_raises_nothing() -> None:
    before = current_version()
    with transaction.atomic():
        a_team()
        assert current_version() == before + 1
        transaction.set_rollback(True)
    assert current_version() == before


def test_other_tables_do_not_raise_the_version(django_user_model: Any) -> None:
    before = current_version()
    user = django_user_model.objects.create(username="admin")
    PersonalToken.objects.create(user=user, name="cli", digest=b"x" * 32)
    RequestLog.objects.create(request_id="r", started_at=utc(2026), dialect="openai", status_code=200)
    assert current_version() == before


def test_installing_twice_changes_nothing() -> None:
    a_team()
    before = current_version()
    install()
    assert current_version() == before
    a_team("other")
    assert current_version() == before + 1


def test_a_version_row_that_is_gone_is_named() -> None:
    ConfigVersion.objects.all().delete()
    with pytest.raises(ConfigurationError, match="migrate"):
        current_version()
    install()
    assert current_version() == 1


rebuilds_tables = pytest.mark.skipif(
    not os.environ.get("DATABASE_URL", "sqlite").startswith("sqlite"), reason="only SQLite rebuilds tables"
)


@rebuilds_tables
@pytest.mark.django_db(transaction=True)
def test_triggers_outlive_the_rebuilding_of_their_table() -> None:
    with connection.schema_editor() as editor:
        editor._remake_table(Team)
    before = current_version()
    a_team("unseen")
    assert current_version() == before

    call_command("migrate", verbosity=0)
    a_team("seen")
    assert current_version() == before + 1


@rebuilds_tables
@pytest.mark.django_db(transaction=True)
def test_the_versions_own_table_can_be_rebuilt() -> None:
    a_team("before")
    before = current_version()

    make_way(plan=[(Migration("0002_later", "gateway_config"), False)])
    with connection.schema_editor() as editor:
        editor._remake_table(ConfigVersion)
    install()

    a_team("after")
    assert current_version() == before + 1


def test_migrations_of_others_leave_the_triggers_in_place() -> None:
    make_way(plan=[(Migration("0002_later", "access"), False)])
    before = current_version()
    a_team()
    assert current_version() == before + 1
