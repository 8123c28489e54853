"""A32: another site can make a browser send a request with its cookies. It changes nothing, and reads nothing."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import get_resolver

from core.errors import NotAuthenticated
from gateway import admission
from tests.conftest import ROOT
from tests.security.access_fixtures import Tenants
from tests.security.test_a13_other_tenants_ids import _PARAMETER, ROWS, rest_routes, row_of

WRITES = ("post", "put", "patch", "delete")


def test_no_write_of_rest_goes_by_session_alone(tenants: Tenants) -> None:
    client = Client(enforce_csrf_checks=True, headers={"Origin": "https://evil.test"})
    client.force_login(tenants.people["superuser"])
    tried = 0
    for route in rest_routes(get_resolver().url_patterns):
        known = any(words in route for words in ROWS)
        url = _PARAMETER.sub(row_of(tenants.ours, route), route) if known else route
        for method in WRITES:
            answer = getattr(client, method)(url, b"{}", content_type="application/json")
            assert answer.status_code in (403, 405), (method, url)
            if answer.status_code == 403:
                tried += 1
                assert "CSRF" in answer.content.decode(), (method, url)
    assert tried > 40


@pytest.mark.parametrize("path", ["access/team/add/", "access/apikey/add/", "auth/user/add/", "access/grant/add/"])
def test_no_form_of_the_admin_is_taken_from_elsewhere(tenants: Tenants, path: str) -> None:
    client = Client(enforce_csrf_checks=True, headers={"Origin": "https://evil.test", "Referer": "https://evil.test/"})
    client.force_login(tenants.people["superuser"])
    assert client.post(f"/admin/{path}", {"name": "x"}).status_code == 403
    assert client.post("/admin/login/", {"username": "a", "password": "b"}).status_code == 403
    assert client.post("/admin/logout/").status_code == 403


def test_a_session_is_no_credential_of_the_data_plane(tenants: Tenants) -> None:
    client = Client()
    client.force_login(tenants.people["superuser"])
    cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items()).encode()
    with pytest.raises(NotAuthenticated):
        admission.credential([(b"cookie", cookie), (b"origin", b"http://localhost")], b"")


def test_no_answer_invites_other_sites(tenants: Tenants) -> None:
    client = Client(headers={"Origin": "https://evil.test"})
    client.force_login(tenants.people["superuser"])
    for url in ("/api/info", "/api/v1/llm/keys", "/admin/", "/admin/login/", "/metrics", "/docs"):
        for answer in (client.get(url), client.options(url, headers={"Access-Control-Request-Method": "POST"})):
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")], url
    for package in ("core", "monitoring", "providers", "models_registry", "access", "gateway", "llmcontrol"):
        for path in (ROOT / package).rglob("*.py"):
            if path != ROOT / "gateway/doors/cors.py":  # for the data plane alone, off by default: tests/e2e/test_from_the_environment.py
                assert not re.search("access-control-allow|corsheaders", path.read_text(), re.IGNORECASE), path
