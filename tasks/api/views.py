"""Tasks over REST, for programs with an API key of the scope `tasks`, and for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import APIException, ErrorDetail, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.viewsets import GenericViewSet

from access.api.key_authentication import ApiKeyAuthentication, Program
from core.errors import GatewayError, InvalidRequest
from tasks import queue, service
from tasks.added import Types
from tasks.api import serializers as shapes
from tasks.api.filters import TaskFilters
from tasks.models import PREFIX, Task
from tasks.service import Submission, Submitter
from tasks.states import Status

_MAX_EVENTS = 500
_ONCE = [
    OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, description="The same task is made once, however often it is sent.")
]


class Refused(APIException):
    """A refusal of the service, in the shape of every REST error."""

    def __init__(self, error: GatewayError) -> None:
        self.status_code = error.http_status
        self.wait = None if error.retry_after_s is None else max(1, round(error.retry_after_s))
        super().__init__(error.message, code=error.code or "invalid")


class TaskViewSet(GenericViewSet):
    """Queued work: submit it, ask for it, cancel it."""

    queryset = Task.objects.all()
    keyset = "-created_at"
    serializer_class = shapes.TaskShown
    filterset_class = TaskFilters
    authentication_classes = [ApiKeyAuthentication, *cast(Any, api_settings.DEFAULT_AUTHENTICATION_CLASSES)]
    permission_for = {
        "create": "tasks.add_task",
        "batch": "tasks.add_task",
        "cancel": "tasks.change_task",
        "retrieve": "tasks.view_task",
        "list": "tasks.view_task",
        "events": "tasks.view_task",
    }
    lookup_url_kwarg = "task_id"
    lookup_value_regex = PREFIX + r"[0-9a-f-]{36}"

    @extend_schema(request=shapes.TaskBody, responses={202: shapes.Submitted}, parameters=_ONCE)
    def create(self, request: Request) -> Response:
        (task,) = self._submitted(request, [_read(request.data)])
        return Response(_accepted(task), status=202)

    @extend_schema(request=shapes.BatchBody, responses={202: shapes.BatchSubmitted}, parameters=_ONCE)
    def batch(self, request: Request) -> Response:
        """All of them, or none."""
        rows = self._submitted(request, _read_batch(request.data))
        return Response({"batch_id": rows[0].batch, "tasks": [_accepted(row) for row in rows]}, status=202)

    def list(self, request: Request) -> Response:
        rows = self.filter_queryset(self.get_queryset())
        if isinstance(request.user, Program):
            rows = rows.filter(key=request.user.key)
        page = self.paginate_queryset(rows)
        return self.get_paginated_response([service.shown(row) for row in page or ()])

    def retrieve(self, request: Request, task_id: str) -> Response:
        return Response(service.shown(self._task(request, task_id)))

    @extend_schema(request=None)
    def cancel(self, request: Request, task_id: str) -> Response:
        task = self._task(request, task_id)
        if not queue.cancel(task.pk, time.time()):
            task.refresh_from_db()
            raise _conflict(task)
        task.refresh_from_db()
        return Response(service.shown(task))

    @extend_schema(
        responses=shapes.EventShown(many=True),
        parameters=[OpenApiParameter("after", int, description="A seq: what came later.")],
        filters=False,
    )
    def events(self, request: Request, task_id: str) -> Response:
        task, after = self._task(request, task_id), request.query_params.get("after", "0")
        if not (after.isascii() and after.isdecimal() and len(after) < 19):
            raise ValidationError({"after": ["Write the seq of an event, a whole number."]})
        rows = task.events.filter(seq__gt=int(after)).order_by("seq")[:_MAX_EVENTS]
        return Response([{"seq": row.seq, "status": row.status, "attempt": row.attempt, "note": row.note, "at": row.at} for row in rows])

    def _submitted(self, request: Request, asked: Sequence[Submission]) -> Sequence[Task]:
        once = request.headers.get("Idempotency-Key", "")
        if len(once) > 255 or not once.isprintable():
            raise ValidationError({"Idempotency-Key": ["Use up to 255 printable characters."]})
        try:
            return service.submit(asked, _submitter(request), idempotency_key=once)
        except GatewayError as error:
            raise Refused(error) from None

    def _task(self, request: Request, task_id: str) -> Task:
        task = service.found(_submitter(request), task_id)
        if task is None:
            raise NotFound("There is no such task.")
        return task


def _accepted(task: Task) -> dict[str, str]:
    """As it was accepted, whenever the same submission comes again."""
    return {"task_id": task.public_id, "status": Status.QUEUED}


def _submitter(request: Request) -> Submitter:
    return Submitter(key=request.user.key) if isinstance(request.user, Program) else Submitter(user=request.user)


def _read(body: Any, where: str = "", types: Types | None = None) -> Submission:
    try:
        return service.read(body, where=where, types=types)
    except InvalidRequest as refused:
        raise ValidationError({refused.param or api_settings.NON_FIELD_ERRORS_KEY: [ErrorDetail(refused.message, "invalid")]}) from None


def _read_batch(body: Any) -> list[Submission]:
    tasks = body.get("tasks") if isinstance(body, dict) else None
    if not isinstance(tasks, list) or not 1 <= len(tasks) <= service.MAX_BATCH or len(body) != 1:
        raise ValidationError({"tasks": [f'Write {{"tasks": […]}} with 1 to {service.MAX_BATCH} tasks.']})
    types = Types()
    return [_read(task, f"tasks.{place}.", types) for place, task in enumerate(tasks)]


def _conflict(task: Task) -> APIException:
    refused = APIException(f"The task has ended already: it is {task.status}.", code="task_ended")
    refused.status_code = 409
    return refused
