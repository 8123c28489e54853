"""Where the trail cannot be written, nothing is changed, and whoever asked is told so in a sentence."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from rest_framework.test import APIClient

from access.models import Team
from access.services import create_personal_token
from monitoring import audit
from monitoring.audit import AuditUnavailable
from monitoring.audit_checkpoints import verify
from tests.audit.writers import ROWS, hammer

pytestmark = pytest.mark.django_db(transaction=True)
HIDDEN = "hidden_audit"


@pytest.fixture
def rest() -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(User.objects.create_superuser('root'), 'test')[1]}")
    return client


@pytest.fixture(params=["a trigger that raises", "no table"])
def broken(request: pytest.FixtureRequest, rest: APIClient, admin_client: Any) -> Iterator[None]:
    """After the cast has come on: they are in the trail."""
    if request.param == "no table":
        execute(f"ALTER TABLE monitoring_auditevent RENAME TO {HIDDEN}")
        yield
        execute(f"ALTER TABLE {HIDDEN} RENAME TO monitoring_auditevent")
    elif connection.vendor == "sqlite":
        execute("CREATE TRIGGER broken BEFORE INSERT ON monitoring_auditevent BEGIN SELECT RAISE(ABORT, 'broken'); END")
        yield
        execute("DROP TRIGGER broken")
    else:
        execute("ALTER TABLE monitoring_auditevent ADD CONSTRAINT broken CHECK (sequence < 0) NOT VALID")
        yield
        execute("ALTER TABLE monitoring_auditevent DROP CONSTRAINT broken")


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.usefixtures("broken")
def test_no_change_is_accepted_over_rest(rest: APIClient) -> None:
    answer = rest.post("/api/v1/llm/teams", {"name": "search"}, format="json")
    assert answer.status_code == 503
    error = answer.json()["errors"][0]
    assert error["code"] == "audit_unavailable"
    assert "audit trail cannot be written" in error["detail"]
    assert not Team.objects.exists()


@pytest.mark.usefixtures("broken")
def test_no_change_is_accepted_in_the_admin(admin_client: Any) -> None:
    answer = admin_client.post("/admin/access/team/add/", {"name": "search", "is_active": "on", "price_adjustment_bp": "0"})
    assert answer.status_code == 503
    assert "audit trail cannot be written" in answer.content.decode()
    assert not Team.objects.exists()


@pytest.mark.usefixtures("broken")
def test_no_change_is_accepted_in_the_shell() -> None:
    for change in (
        lambda: Team.objects.create(name="search"),
        lambda: Team.objects.bulk_create([Team(name="a"), Team(name="b")]),
        lambda: User.objects.update(is_active=False),
        lambda: User.objects.all().delete(),
    ):
        with pytest.raises(AuditUnavailable, match="nothing was changed"):
            change()
    assert not Team.objects.exists()
    assert User.objects.filter(is_active=True).count() == 2


@pytest.mark.usefixtures("broken")
def test_nobody_logs_in(client: Any) -> None:
    User.objects.filter(pk=0).update(is_active=False)  # changes nothing, so it may
    answer = client.post("/admin/login/", {"username": "admin", "password": "password", "next": "/admin/"})
    assert answer.status_code == 503
    assert "sessionid" not in client.cookies


@pytest.mark.usefixtures("broken")
def test_a_refusal_stays_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Token llmc-pat-wrong")
    assert client.get("/api/v1/llm/teams").status_code == 401
    assert "a refusal could not be recorded" in caplog.text


def test_a_full_disk_is_said_to_be_full(rest: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        cause = sqlite3.OperationalError("database or disk is full")
        cause.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise OperationalError(str(cause)) from cause

    monkeypatch.setattr(audit, "_append", full)
    answer = rest.post("/api/v1/llm/teams", {"name": "search"}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (507, "disk_full")
    assert not Team.objects.exists()


def test_eight_writers_make_one_chain(tmp_path: Path) -> None:
    """A48: no forks, no gaps, no deadlock, whatever else they lock first."""
    if connection.vendor == "postgresql":
        assert hammer() == []
        found = verify()
        assert (found.bad, found.rows) == (None, ROWS)
        return
    # The tests' SQLite is in memory, which threads share in a way that files are not shared.
    environment = os.environ | {"LLM_STATE_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-m", "tests.audit.writers"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"failures": [], "rows": ROWS, "bad": None, "covered": ROWS}
