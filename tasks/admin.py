"""Tasks, to look at and to cancel."""

from __future__ import annotations

import time
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from monitoring.pages import Pages, ReadOnly
from tasks import queue
from tasks.engine import distributed
from tasks.models import Task

_COLOURS = {"queued": "info", "running": "warning", "completed": "success", "failed": "danger", "cancelled": "", "expired": "danger"}

if distributed():
    from procrastinate.contrib.django.models import ProcrastinateJob

    # Ids on their way: what they stand for is on the pages of tasks.
    admin.site.unregister(ProcrastinateJob)


@admin.register(Task)
class TaskAdmin(ReadOnly, Pages, ModelAdmin):
    list_display = ("public_id", "kind", "state", "priority", "attempts", "created_at", "finished_at")
    list_filter = ("status", "kind", "priority")
    search_fields = ("=id", "=request_id")
    actions = ("cancel",)
    show_full_result_count = False
    fieldsets = (
        (None, {"fields": ("public_id", "kind", "state", "priority", "key", "user", "created_at", "started_at", "finished_at")}),
        ("Asked", {"fields": ("prompt", "data", "model", "options", "timeout_s", "max_attempts", "deadline")}),
        ("Answered", {"fields": ("attempts", "result", "error_code", "error_message", "request_id")}),
    )

    @display(description="Status", label=_COLOURS)
    def state(self, row: Task) -> str:
        return row.status

    @display(description="Task")
    def public_id(self, row: Task) -> str:
        return row.public_id

    @action(description="Cancel those that have not ended", permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        cancelled = sum(queue.cancel(pk, time.time()) for pk in rows.values_list("pk", flat=True))
        self.message_user(request, f"{cancelled} cancelled.", messages.SUCCESS)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tasks.change_task")
