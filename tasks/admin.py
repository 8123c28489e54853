"""Tasks, to look at and to cancel; and the types of them that people add."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

import msgspec
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import action

from monitoring.admin import Ledger
from monitoring.columns import display
from monitoring.filters import Named
from monitoring.pages import Pages, pretty
from tasks import queue, service
from tasks.engine import distributed
from tasks.forms import TaskTypeForm
from tasks.models import PREFIX, Task, TaskType
from tasks.states import Status

_COLOURS = {"queued": "info", "running": "warning", "completed": "success", "failed": "danger", "cancelled": "", "expired": "danger"}

if distributed():
    from procrastinate.contrib.django.models import ProcrastinateJob

    # Ids on their way: what they stand for is on the pages of tasks.
    admin.site.unregister(ProcrastinateJob)


class KindNamed(Named):
    title, parameter_name, column = _("type"), "kind", "kind"


@admin.register(Task)
class TaskAdmin(Pages, Ledger):
    list_display = ("public_id", "kind", "state", "priority", "attempts", "created_at", "finished_at")
    list_display_links = ("public_id",)
    list_filter = ("status", KindNamed, "priority")
    search_fields = ("=id", "=request_id")
    search_help_text = _("A whole task id or request id")
    newest_by = "created_at"
    ordering = ("-created_at",)
    actions = ("cancel",)
    actions_detail_hide_default = False
    when_empty = _("No task yet. Programs queue them at /api/v1/tasks, with an API key that has the scope “tasks”.")
    fieldsets = (
        (
            None,
            {"fields": ("public_id", "kind", "state", "priority", "key", "user", "of_batch", "created_at", "started_at", "finished_at")},
        ),
        (_("Asked"), {"fields": ("prompt", "template", "asked_data", "model", "asked_options", "timeout_s", "max_attempts", "deadline")}),
        (_("Answered"), {"fields": ("attempts", "answered_result", "error_code", "error_message", "request_id")}),
    )

    @display(description=_("Status"), label=_COLOURS)
    def state(self, row: Task) -> tuple[str, str]:
        return row.status, row.get_status_display()

    @display(description=_("Task"))
    def public_id(self, row: Task) -> str:
        return row.public_id

    @display(description=_("Data"))
    def asked_data(self, row: Task) -> str:
        return pretty(row.data)

    @display(description=_("Options"))
    def asked_options(self, row: Task) -> str:
        return pretty(row.options)

    @display(description=_("Result"))
    def answered_result(self, row: Task) -> str:
        return pretty(row.result)

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> tuple[QuerySet[Any], bool]:
        return super().get_search_results(request, queryset, search_term.strip().removeprefix(PREFIX))

    @display(description=_("Batch"))
    def of_batch(self, row: Task) -> str:
        if row.batch is None:
            return "–"
        url = reverse(f"{self.admin_site.name}:tasks_task_batch", args=[row.batch])
        return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>', url, row.batch)

    def get_urls(self) -> list[URLPattern]:
        batch = path("batch/<uuid:batch>/", self.admin_site.admin_view(self.batch), name="tasks_task_batch")
        return [batch, *super().get_urls()]

    def batch(self, request: HttpRequest, batch: uuid.UUID) -> HttpResponse:
        """How far a batch is: as the database has it now, and from then on as the socket tells (task_batch.js)."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        tasks = list(service.of_batch(batch))
        if not tasks:
            raise Http404("There is no batch with this id; it may have been removed.")
        counts = Counter(task.status for task in tasks)
        shown = [{"task": task, "url": self.url_of(task), "result": _in_short(task)} for task in tasks]
        names = dict(Task._meta.get_field("status").flatchoices)
        states = [(state, names[state], counts[state]) for state in Status.values]
        return self.page(request, "task_batch.html", tasks[0], gettext("Batch"), batch=batch, tasks=shown, states=states)

    @action(description=_("Cancel those that have not ended"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        cancelled = sum(queue.cancel(pk, time.time()) for pk in rows.values_list("pk", flat=True))
        self.message_user(request, f"{cancelled} cancelled.", messages.SUCCESS)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tasks.change_task")


@admin.register(TaskType)
class TaskTypeAdmin(ModelAdmin):
    when_empty = _(
        "No type of your own yet. One turns a prompt into a kind of task whose result has a fixed shape; shipped types need no row."
    )
    form = TaskTypeForm
    list_display = ("name", "active", "prompt", "description")
    list_filter = ("is_active",)
    search_fields = ("name", "description", "prompt")
    fieldsets = (
        (None, {"fields": ("name", "description", "is_active")}),
        (_("What it asks, and what it answers"), {"fields": (("prompt", "prompt_version"), "result_schema")}),
        (_("Where a task says nothing else"), {"fields": ("model", ("max_tokens", "temperature"), "timeout_s")}),
        (_("Limits"), {"fields": ("max_concurrency",)}),
    )

    @display(description=_("Status"), label={"on": "success", "off": "danger"})
    def active(self, row: TaskType) -> str:
        return "on" if row.is_active else "off"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("name",) if obj else ()


def _in_short(task: Task) -> str:
    """What came of it, as JSON, or why nothing did."""
    return task.error_message if task.result is None else msgspec.json.encode(task.result).decode()
