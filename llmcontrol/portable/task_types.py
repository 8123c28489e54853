"""Types of tasks that people have added."""

from __future__ import annotations

from llmcontrol.portable.kind import Serialized
from tasks.api.types import TaskTypeSerializer
from tasks.models import TaskType


class TaskTypes(Serialized):
    section, model, serializer = "task_types", TaskType, TaskTypeSerializer
