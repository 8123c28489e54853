"""Steps of migrations that hold no table for long, however many rows it has: they run while the gateway serves."""

from __future__ import annotations

from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Field, Value


class AddColumn(migrations.AddField):
    """`AddField` that writes no row anew. Django copies a table of SQLite for a column that may not be NULL, which locks the file
    for seconds; SQLite itself needs only the column's constant default, and so it is given one that stays: `db_default`."""

    def __init__(self, model_name: str, name: str, field: Field[Any, Any]) -> None:
        """Raises ValueError for a field that SQLite cannot add so."""
        constant = isinstance(field.db_default, Value | int | float | str)
        if field.unique or field.remote_field or not (constant or (field.null and not field.has_default())):
            raise ValueError(f"{model_name}.{name}: it is added in place, so it needs null or a constant db_default, and no unique.")
        super().__init__(model_name, name, field)

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            BaseDatabaseSchemaEditor.add_field(schema_editor, model, model._meta.get_field(self.name))

    def describe(self) -> str:
        return f"{super().describe()}, in place"
