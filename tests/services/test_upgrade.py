"""The upgrade rule: migrations only expand, so the version before serves on the new schema while it is replaced, process by process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, models, transaction
from django.db.migrations import Migration, operations
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import NOT_PROVIDED
from django.utils import timezone

from llmcontrol import migrated

# The schema that processes of the version before know. It moves on with each release, to what the last but one had brought.
BASELINE = {
    "monitoring": "0011_ledger",
    "providers": "0007_visibility",
    "models_registry": "0006_visibility",
    "access": "0005_members_and_grants",
    "gateway_config": "0001_initial",
    "tasks": "0001_initial",
}
# A step that is no expansion, and why processes of the version before bear it or what they cannot do meanwhile.
NOTED = {
    "models_registry.0009_route_strategies: route.fallbacks": "Routes are added again once every process is of the new version.",
    "models_registry.0009_route_strategies: route.strategy": "As above.",
    "models_registry.0009_route_strategies: route.task_types": "As above.",
    "models_registry.0009_route_strategies: route.weights": "As above.",
    "telling.0003_alerts: RunPython": "Rules are added to a table that this migration makes.",
}
CANNOT_ADD = {"route"}  # what NOTED says of whole tables
HARMLESS = (
    operations.CreateModel,
    operations.AddIndex,
    operations.RemoveIndex,
    operations.AlterModelOptions,
    operations.AlterModelManagers,
)
LOADER = MigrationLoader(None)


def later(app: str) -> list[Migration]:
    """An app's migrations after its baseline, all of them where it has none."""
    ours = sorted(name for label, name in LOADER.disk_migrations if label == app)
    assert BASELINE.get(app, ours[0]) in ours
    return [LOADER.disk_migrations[app, name] for name in ours if name > BASELINE.get(app, "")]


OURS = sorted(
    {config.label for config in apps.get_app_configs() if not config.name.startswith(("django", "procrastinate"))} & LOADER.migrated_apps
)
LATER = [migration for app in OURS for migration in later(app)]


def narrowings(migration: Migration) -> Iterator[str]:
    """What a process of before could stumble over."""
    where = f"{migration.app_label}.{migration.name}"
    known = (migration.app_label, migration.name) in LOADER.disk_migrations
    state = LOADER.project_state((migration.app_label, migration.name), at_end=False) if known else LOADER.project_state()
    new: set[str] = set()
    for step in migration.operations:
        for found in _narrowing(step, migration.app_label, state, new):
            yield f"{where}: {found}"
        step.state_forwards(migration.app_label, state)


def _narrowing(step: Operation, app: str, state: Any, new: set[str]) -> Iterator[str]:
    if isinstance(step, operations.AddField):
        name = f"{step.model_name_lower}.{step.name}"
        new.add(name)
        field = step.field
        if not (field.null or field.many_to_many or field.db_default is not NOT_PROVIDED or step.model_name_lower in new):
            yield name
    elif isinstance(step, operations.AlterField):
        if not _widens(state.models[app, step.model_name_lower].fields[step.name], step.field):
            yield f"{step.model_name_lower}.{step.name}"
    elif isinstance(step, operations.AddConstraint):
        # Rows of before leave new columns empty, and empty breaks no constraint of uniqueness.
        named = {f"{step.model_name_lower}.{each}" for each in getattr(step.constraint, "fields", ())}
        if not (named & new or step.model_name_lower in new):
            yield f"{step.model_name_lower}: {step.constraint.name}"
    elif isinstance(step, operations.CreateModel):
        new.add(step.name_lower)
    elif not isinstance(step, HARMLESS):
        yield type(step).__name__


def _widens(old: models.Field[Any, Any], new: models.Field[Any, Any]) -> bool:
    same = type(old) is type(new) and (old.null, old.unique, old.db_index) in {
        (new.null, new.unique, new.db_index),
        (False, new.unique, new.db_index),
    }
    return same and (new.max_length or 0) >= (old.max_length or 0) and (new.null or not old.null)


@pytest.mark.parametrize("migration", LATER, ids=lambda migration: f"{migration.app_label}.{migration.name}")
def test_a_migration_only_expands(migration: Migration) -> None:
    assert [found for found in narrowings(migration) if found not in NOTED] == []


def test_every_note_is_about_something() -> None:
    assert {found for migration in LATER for found in narrowings(migration)} >= NOTED.keys()


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (operations.RemoveField("team", "name"), "RemoveField"),
        (operations.RenameField("team", "name", "title"), "RenameField"),
        (operations.DeleteModel("team"), "DeleteModel"),
        (operations.RunSQL("DROP TABLE access_team"), "RunSQL"),
        (operations.AddField("team", "motto", models.CharField(max_length=9, default="")), "team.motto"),
        (operations.AlterField("team", "name", models.CharField(max_length=1)), "team.name"),
        (operations.AddConstraint("team", models.UniqueConstraint(fields=["name"], name="one")), "team: one"),
    ],
)
def test_what_narrows_is_found(step: Operation, found: str) -> None:
    migration = Migration("9999_throwaway", "access")
    migration.operations = [step]
    assert list(narrowings(migration)) == [f"access.9999_throwaway: {found}"]


@pytest.mark.parametrize(
    "step",
    [
        operations.AddField("team", "motto", models.CharField(max_length=9, default="", db_default="")),
        operations.AddField("team", "motto", models.TextField(null=True)),
        operations.CreateModel("Motto", [("id", models.BigAutoField(primary_key=True))]),
    ],
)
def test_what_expands_passes(step: Operation) -> None:
    migration = Migration("9999_throwaway", "access")
    migration.operations = [step]
    assert list(narrowings(migration)) == []


# Rows as the version before writes them -------------------------------------------------------------------------------


def before() -> Any:
    """The models of the baseline: what they insert is what its code inserts, column for column."""
    return LOADER.project_state(list(BASELINE.items()), at_end=True).apps


ONE_ROW = {"gateway_config.configversion"}  # made by a migration; nobody adds another
TABLES = sorted({model._meta.label_lower for model in before().get_models() if model._meta.app_label in BASELINE} - ONE_ROW)


def row(old: Any, model: Any) -> Any:
    """A new one, and those that it refers to."""
    values = {}
    for field in model._meta.concrete_fields:
        if field.primary_key and isinstance(field, models.AutoField):
            continue
        if field.remote_field:
            if not field.null:
                values[field.name] = row(old, old.get_model(field.remote_field.model._meta.label_lower))
        elif not field.has_default() and not field.null:
            values[field.name] = _value(field)
    return model._default_manager.create(**values)


def _value(field: Any) -> Any:
    if field.choices:
        return field.choices[0][0]
    kinds: dict[str, Any] = {
        "UUIDField": uuid.uuid4(),
        "DateTimeField": timezone.now(),
        "DateField": timezone.now().date(),
        "BooleanField": False,
        "JSONField": {},
        "BinaryField": b"",
    }
    kind = field.get_internal_type()
    if kind in kinds:
        return kinds[kind]
    return uuid.uuid4().hex[: field.max_length or 32] if kind in ("CharField", "TextField", "SlugField", "EmailField") else 1


@pytest.mark.django_db
@pytest.mark.parametrize("label", TABLES)
def test_the_version_before_can_still_write(label: str) -> None:
    old = before()
    model = old.get_model(label)
    if model._meta.model_name in CANNOT_ADD:
        with pytest.raises(DatabaseError), transaction.atomic():
            row(old, model)
        return
    made = row(old, model)
    assert model._default_manager.get(pk=made.pk).pk == made.pk  # every column of before is still there to be read


# Ready only when migrated ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_database_with_every_migration_will_do() -> None:
    migrated.require_migrated()


@pytest.mark.django_db
def test_a_missing_migration_is_named_with_what_to_do() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'telling'")
    with pytest.raises(migrated.NotMigrated, match=r"telling\.0001_webhooks, telling\.0002\w+.*: run `manage.py migrate`"):
        migrated.require_migrated()


@pytest.mark.django_db
def test_migrations_of_a_newer_version_are_borne() -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('access', '9999_of_tomorrow', %s)", [timezone.now()])
    migrated.require_migrated()


def test_what_a_version_brings_is_what_django_finds() -> None:
    """Read from names of files, and compared with what importing them says."""
    assert migrated._shipped() == LOADER.disk_migrations.keys()
