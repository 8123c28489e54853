"""What belongs to no app: info, metrics, schema, docs; how bodies are parsed; what stands at no address."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from rest_framework.test import APIClient

from access.models import Team
from llmcontrol.views import VERSION
from monitoring.metrics import REQUESTS

TEAMS = "/api/v1/llm/teams"


def test_info(stranger: APIClient) -> None:
    info = stranger.get("/api/info").json()
    assert (info["name"], info["version"]) == ("llmcontrol", VERSION)
    assert isinstance(info["config_version"], int)


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION


def test_a_change_shows_in_the_configs_version(root: APIClient) -> None:
    before = root.get("/api/info").json()["config_version"]
    root.post(TEAMS, {"name": "new"})
    assert root.get("/api/info").json()["config_version"] > before


@pytest.mark.parametrize("accept", ["text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "application/openmetrics-text; version=1.0.0", "*/*"])
def test_metrics_are_for_those_who_see_all_usage(anonymous: APIClient, stranger: APIClient, viewer: APIClient, accept: str) -> None:
    assert anonymous.get("/metrics", headers={"Accept": accept}).status_code == 401
    assert stranger.get("/metrics", headers={"Accept": accept}).status_code == 403
    response = viewer.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain")
    assert f"# TYPE {REQUESTS._name}".encode() in response.content
    assert b"django_http_requests" in response.content


def test_metrics_of_all_workers(root: APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    response = root.get("/metrics")
    assert (response.status_code, response.content) == (200, b"")


def test_the_schema_is_valid_and_without_a_warning(tmp_path: Path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml"))
    text = (tmp_path / "schema.yaml").read_text()
    for path in ("/api/v1/llm/providers/{id}/test", "/api/v1/llm/keys/{id}/revoke", "/api/v1/usage/records", "personalToken"):
        assert path in text


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_of_the_schema_load_nothing_from_elsewhere(anonymous: APIClient, stranger: APIClient, path: str) -> None:
    sent_away = anonymous.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (sent_away.status_code, sent_away.headers["Location"]) == (302, f"/admin/login/?next={path}")
    page = stranger.get(path)
    text = page.content.decode()
    assert "/static/drf_spectacular_sidecar/" in text
    assert "//" not in text.replace("https://spec.openapis.org", "").replace("<!DOCTYPE html>", "")
    assert "<script>" not in text
    assert "'unsafe-eval'" not in page.headers["Content-Security-Policy"]


def test_the_script_of_the_docs_is_a_file_of_its_own(stranger: APIClient) -> None:
    script = stranger.get("/docs?script=")
    assert script.headers["Content-Type"].startswith("application/javascript")
    assert b"SwaggerUIBundle" in script.content


def test_nothing_at_an_address_is_said_in_the_shape_of_errors(anonymous: APIClient) -> None:
    response = anonymous.get("/api/v1/llm/nothing")
    assert response.status_code == 404
    assert response.json() == {
        "type": "client_error",
        "errors": [{"code": "not_found", "detail": "There is nothing at this address.", "attr": None}],
    }
    assert anonymous.get("/nothing").headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"name": ', "not valid JSON"),
        (b"", "not valid JSON"),
        (b'{"name": NaN}', "not valid JSON"),
        (b'{"name": "\xff"}', "not valid JSON"),
        (b'{"name": "\\ud800"}', "not valid JSON"),
        (b'{"name": "\\u0000"}', "NUL"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_is_no_json_is_400(root: APIClient, body: bytes, said: str) -> None:
    response = root.generic("POST", TEAMS, body, content_type="application/json")
    assert response.status_code == 400
    assert said in response.json()["errors"][0]["detail"] or (body == b"" and response.json()["errors"][0]["attr"] == "name")
    assert not Team.objects.exists()


def test_a_large_body_is_413(root: APIClient) -> None:
    response = root.generic("POST", TEAMS, b'{"name": "' + b"x" * 2**20 + b'"}', content_type="application/json")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (413, "request_too_large")


def test_another_media_type_is_415(root: APIClient) -> None:
    assert root.generic("POST", TEAMS, b"name=x", content_type="application/x-www-form-urlencoded").status_code == 415


@pytest.mark.parametrize("method", ["head", "options", "trace"])
def test_other_methods_do_no_harm(anonymous: APIClient, root: APIClient, method: str) -> None:
    call: Any = getattr
    assert call(anonymous, method)(TEAMS).status_code == 401
    assert call(root, method)(TEAMS).status_code in (200, 405)


@pytest.mark.django_db
def test_a_broken_key_ring_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("no keys")

    monkeypatch.setattr("providers.checks.key_ring", broken)
    with pytest.raises(SystemCheckError, match=r"providers\.E001"):
        call_command("check")


@pytest.mark.django_db
def test_an_adapter_that_does_not_load_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    from providers.adapters import registry

    lost = registry.Vendor("Lost", "no.such.module:Adapter")
    monkeypatch.setitem(registry._VENDORS, "lost", lost)
    with pytest.raises(SystemCheckError, match=r"providers\.E002"):
        call_command("check")
