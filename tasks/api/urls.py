from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from tasks.api.types import TaskTypeViewSet
from tasks.api.views import TaskViewSet

router = SimpleRouter(trailing_slash=False)
router.register("llm/task-types", TaskTypeViewSet, basename="task-types")
_at = TaskViewSet.as_view
urlpatterns = [
    path("tasks", _at({"post": "create", "get": "list"}), name="tasks"),
    path("tasks/batch", _at({"post": "batch"}), name="tasks-batch"),
    path("tasks/<str:task_id>", _at({"get": "retrieve"}), name="task"),
    path("tasks/<str:task_id>/cancel", _at({"post": "cancel"}), name="task-cancel"),
    path("tasks/<str:task_id>/events", _at({"get": "events"}, pagination_class=None), name="task-events"),
    *router.urls,
]
