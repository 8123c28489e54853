"""The same tests of the queue against PostgreSQL, where other statements lock and procrastinate carries the ids."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.gateway_config.test_postgres import BASE_DIR, SERVER, require_server

ON_POSTGRES = os.environ.get("DATABASE_URL", "").startswith("postgres")


@pytest.mark.process
@pytest.mark.skipif(ON_POSTGRES, reason="already running against PostgreSQL")
def test_the_queue_on_postgres() -> None:
    require_server()
    environment = os.environ | {"DATABASE_URL": f"{SERVER}/llmcontrol_queue_{os.getpid()}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--create-db", "tests/tasks"]
    done = subprocess.run(command, cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout


@pytest.mark.django_db
@pytest.mark.skipif(not ON_POSTGRES, reason="procrastinate is on PostgreSQL alone")
def test_a_job_is_there_with_its_task_and_in_its_order() -> None:
    from procrastinate.contrib.django.models import ProcrastinateJob

    from tasks import queue, service
    from tasks.queue import Ending
    from tasks.service import Submitter
    from tasks.states import Status

    now = 1_800_000_000.0
    bodies = [{"type": "custom", "prompt": "hi", "priority": priority} for priority in ("low", "urgent", "normal")]
    low, urgent, normal = service.submit([service.read(body) for body in bodies], Submitter(), clock=lambda: now)
    jobs = ProcrastinateJob.objects.order_by("-priority")
    assert [job.args["task_id"] for job in jobs] == [str(task.pk) for task in (urgent, normal, low)]
    (claimed,) = queue.claim("w", 1, now, 20.0, only=[str(urgent.pk)])
    assert queue.end(claimed, Ending(Status.FAILED, error_code="x", again_at=now + 30), now)
    again = jobs.get(scheduled_at=queue.moment(now + 30))
    assert again.args["task_id"] == str(urgent.pk)
