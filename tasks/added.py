"""Types of tasks that administrators add, as rows: a prompt template that takes the task's data, and the shape of the result.

A task of such a type carries all that its type said when it was submitted: its template and the schema of its result. So whoever works
on it looks nothing up, and a type that is changed or removed changes no task that waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from core.errors import InvalidRequest
from tasks.kinds import KINDS, Kind
from tasks.models import Task, TaskType
from tasks.schemas import Shape

_FORMAT = "response_format"


class AddedKind(msgspec.Struct, frozen=True):
    """As `tasks.kinds.Kind`. `schema` None: the result is a text."""

    name: str
    schema: Mapping[str, Any] | None = None

    def messages(self, prompt: str, data: Mapping[str, Any]) -> list[dict[str, str]]:
        """What comes after the messages of the type's template."""
        wanted = "" if self.schema is None else f"Answer with one JSON object of this schema and nothing else:\n{_text(self.schema)}"
        said = "\n\n".join(filter(None, (prompt.strip(), wanted)))
        return [{"role": "user", "content": said}] if said else []

    def wishes(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """They are among the task's own options."""
        return {}

    def decoder(self, data: Mapping[str, Any]) -> Shape | None:
        return None if self.schema is None else Shape(self.schema)

    def read(self, answer: Any) -> dict[str, Any]:
        found: dict[str, Any] = answer
        return found


class Types:
    """The types there are, looked up once for each name: for one submission, of however many tasks."""

    def __init__(self) -> None:
        self._rows: dict[str, TaskType | None] = {}

    def row(self, name: str) -> TaskType | None:
        """None: it is a shipped one. Raises InvalidRequest with `param` where there is no such type."""
        if name in KINDS:
            return None
        if name not in self._rows:
            self._rows[name] = TaskType.objects.filter(name=name, is_active=True).first()
        row = self._rows[name]
        if row is None:
            added = TaskType.objects.filter(is_active=True).values_list("name", flat=True)
            raise InvalidRequest(f"Unknown task type {name[:60]!r}; there are {', '.join([*KINDS, *added])}.", param="type")
        return row

    def check(self, name: str, prompt: str | Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Raises InvalidRequest with the field in `param`. Whether `data` fits the template is seen when the task runs."""
        row = self.row(name)
        if row is None:
            KINDS[name].checked(prompt, data)
        elif not isinstance(prompt, str):
            why = f"Tasks of type {name!r} have the prompt template {row.prompt!r}, which takes their data"
            raise InvalidRequest(f"{why}: leave the prompt out, or write a text that is added to it.", param="prompt")


def template_of(row: TaskType, data: Mapping[str, Any]) -> dict[str, Any]:
    """As a task carries it."""
    version = {} if row.version is None else {"version": row.version}
    return {"id": row.prompt, **version, "variables": data}


def options_of(row: TaskType) -> dict[str, Any]:
    """Of the chat call, where the task says nothing else."""
    said = {"temperature": row.temperature, "max_tokens": row.max_tokens}
    options: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if row.result_schema is not None:
        options[_FORMAT] = {"type": "json_schema", "json_schema": {"name": row.name, "schema": row.result_schema}}
    return options


def kind_of(task: Task) -> Kind | AddedKind:
    """By what the task itself carries."""
    if task.kind in KINDS:
        return KINDS[task.kind]
    wanted = task.options.get(_FORMAT)
    return AddedKind(task.kind, wanted["json_schema"]["schema"] if wanted else None)


def _text(schema: Mapping[str, Any]) -> str:
    return msgspec.json.encode(schema).decode()
