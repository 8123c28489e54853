"""Columns that are added in place: no row is written anew, and rows that are there have the column's default."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, models
from django.db.migrations.state import ModelState, ProjectState
from django.test.utils import CaptureQueriesContext

from monitoring.migration_steps import AddColumn

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def state() -> Any:
    state = ProjectState()
    state.add_model(ModelState("monitoring", "Throwaway", [("id", models.BigAutoField(primary_key=True))]))
    model = state.apps.get_model("monitoring", "Throwaway")
    with connection.schema_editor() as editor:
        editor.create_model(model)
    model._default_manager.create()
    yield state
    with connection.schema_editor() as editor:
        editor.delete_model(model)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (models.IntegerField(db_default=7), 7),
        (models.CharField(max_length=9, db_default="it's"), "it's"),
        (models.CharField(max_length=9, null=True), None),
        (models.BooleanField(db_default=models.Value(False)), False),
    ],
    ids=["number", "text", "null", "truth"],
)
def test_a_column_comes_without_its_table_being_written_anew(state: ProjectState, field: models.Field[Any, Any], value: object):
    step, after = AddColumn("throwaway", "added", field), state.clone()
    step.state_forwards("monitoring", after)
    with CaptureQueriesContext(connection) as queries, connection.schema_editor() as editor:
        step.database_forwards("monitoring", editor, state, after)
    written = [query["sql"] for query in queries if "Throwaway" in query["sql"] or "throwaway" in query["sql"]]
    assert [sql.partition(" ADD COLUMN")[0] for sql in written if "ADD COLUMN" in sql] == ['ALTER TABLE "monitoring_throwaway"']
    assert not [sql for sql in written if "INSERT" in sql or "RENAME" in sql]
    model = after.apps.get_model("monitoring", "Throwaway")
    assert [row.added for row in model._default_manager.all()] == [value]
    model._default_manager.create()
    assert model._default_manager.filter(added=value).count() == 2


@pytest.mark.parametrize(
    "field",
    [
        models.IntegerField(),
        models.IntegerField(default=7),
        models.IntegerField(null=True, default=7),
        models.IntegerField(db_default=models.functions.Length(models.Value("x"))),
        models.IntegerField(null=True, unique=True),
    ],
    ids=["not null", "default", "null with a default", "computed", "unique"],
)
def test_what_would_write_the_table_anew_is_refused(field: models.Field[Any, Any]):
    with pytest.raises(ValueError, match=r"throwaway\.added: it is added in place"):
        AddColumn("throwaway", "added", field)
