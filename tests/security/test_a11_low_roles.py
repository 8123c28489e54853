"""A11: what calls vendors or reads files is not for low roles, and no request reaches a subprocess or a path."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.security.access_fixtures import Tenants

PACKAGES = ("core", "monitoring", "providers", "models_registry", "access", "gateway", "llmcontrol")
# The local model of quickstart, and nothing that a request could name. (Workers are started by uvicorn's own means.)
# The local model, and PostgreSQL's own programs for backups.
STARTS_PROCESSES = {"providers/local_model.py", "llmcontrol/database_copy.py"}


@pytest.mark.parametrize("role", ["viewer", "auditor", "team viewer", "team member", "team manager"])
def test_verbs_that_call_vendors_are_refused(tenants: Tenants, role: str) -> None:
    person = tenants.ours.people[role.removeprefix("team ")] if role.startswith("team ") else tenants.people[role]
    rest, admin = tenants.rest(person), tenants.admin(person)
    provider = tenants.ours.provider
    for path in ("test", "sync-models", "disable", "reset-breaker", "keys"):
        body = {"model": "; touch /tmp/x", "apply": True, "path": "/etc/passwd", "file": "file:///etc/passwd"}
        assert rest.post(f"/api/v1/llm/providers/{provider.pk}/{path}", body, format="json").status_code == 403, path
    pages = [f"/admin/providers/provider/{provider.pk}/{page}/" for page in ("test", "rotate", "add-key", "disable")]
    for page in (*pages, f"/admin/models_registry/llmmodel/sync/{provider.pk}/", "/admin/models_registry/llmmodel/import-prices/"):
        assert admin.post(page, {"model": "x", "accept_all": "1"}).status_code in (403, 404), page


def test_only_the_local_model_and_backups_start_processes() -> None:
    starts = re.compile(
        r"^\s*(?:import|from) (?:subprocess|pty)\b|\bos\.(?:system|popen|exec\w+|\w*spawn\w*|fork)\(|create_subprocess", re.M
    )
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in paths if starts.search(path.read_text())} == STARTS_PROCESSES
