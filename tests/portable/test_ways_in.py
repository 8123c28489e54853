"""The same document by command, by REST and by the admin's page."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from rest_framework.test import APIClient

from access.models import Team
from access.services import create_personal_token
from llmcontrol.portable import document
from models_registry.models import Route
from monitoring.models import AuditEvent
from tests.portable.conftest import PLANTED, config, sections

pytestmark = pytest.mark.usefixtures("house")
URL = "/admin/configuration/"
IMPORT = "/api/v1/config/import"


def text_of(**whole: Any) -> bytes:
    return json.dumps({"format": document.FORMAT, "version": document.VERSION, **whole}).encode()


def person(*codenames: str, **fields: Any) -> User:
    user = User.objects.create_user("keeper", is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def page_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def rest_of(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(user, 'test')[1]}")
    return client


@pytest.fixture
def root() -> User:
    return User.objects.create_superuser("root")


# Commands ------------------------------------------------------------------------------------------------------------------
def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_commands(tmp_path: Path, settings: Any) -> None:
    file = tmp_path / "config.json"
    run("export_config", "--out", str(file))
    assert file.read_bytes() == run("export_config").encode() == config()
    assert set(json.loads(run("export_config", "--only", "teams, routes"))) == {"format", "version", "routes", "teams"}
    with pytest.raises(CommandError, match="no section 'persons'"):
        run("export_config", "--only", "persons")
    file.write_bytes(text_of(teams=[{"name": "search", "max_key_days": 30}, {"name": "new"}]))
    dry = run("plan_config", str(file))
    assert "teams search: changed\n    max_key_days: – -> 30\nteams new: created\n" in dry
    assert dry.endswith("Nothing was changed.\n")
    plan = re.findall(r"Plan (\w{64})\.", dry)[0]
    Team.objects.update(max_key_days=9)
    with pytest.raises(CommandError, match="has changed since"):
        run("apply_config", str(file), "--plan", plan)
    assert "1 created, 1 changed, 0 unchanged, 0 left" in run("apply_config", str(file))
    assert "0 created, 0 changed, 2 unchanged, 0 left" in run("apply_config", str(file))
    file.write_bytes(text_of(teams=[{"name": "other", "max_key_days": 0}]))
    with pytest.raises(CommandError, match=r"Nothing was taken.\nteams\[0\]\.max_key_days \(other\): "):
        run("apply_config", str(file))
    settings.CONFIG_FILE_MAX_BYTES = 20
    with pytest.raises(CommandError, match="longer than 20 bytes"):
        run("apply_config", str(file))
    with pytest.raises(CommandError, match="cannot be read"):
        run("apply_config", str(tmp_path / "none.json"))


# REST ----------------------------------------------------------------------------------------------------------------------
def test_rest(root: User, settings: Any) -> None:
    client = rest_of(root)
    answer = client.get("/api/v1/config/export")
    assert (answer.status_code, answer.content) == (200, config())
    assert AuditEvent.objects.filter(action="exported", source="api", object_type="gateway_config.ConfigVersion").count() == 1
    assert set(client.get("/api/v1/config/export?only=teams").json()) == {"format", "version", "teams"}
    assert client.get("/api/v1/config/export?only=persons").json()["errors"][0]["attr"] == "only"
    assert client.get("/api/v1/config/export?lony=teams").status_code == 400

    def post(query: str, text: bytes) -> Any:
        return client.post(f"{IMPORT}{query}", data=text, content_type="application/json")

    text = text_of(teams=[{"name": "search", "max_key_days": 30}])
    dry = post("?dry_run=true", text).json()
    assert dry["applied"] is False
    change = {"field": "max_key_days", "before": None, "after": 30}
    assert dry["outcomes"] == [{"section": "teams", "name": "search", "verb": "changed", "changes": [change], "notes": []}]
    assert post("?plan=another", text).status_code == 409
    assert Team.objects.get().max_key_days is None
    assert post(f"?plan={dry['plan']}", text).json()["applied"] is True
    assert Team.objects.get().max_key_days == 30
    assert post("?dry_run=perhaps", text).json()["errors"][0]["attr"] == "dry_run"
    wrong = post("", text_of(teams=[{"name": "search", "max_key_days": 0}]))
    assert (wrong.status_code, wrong.json()["errors"][0]["attr"]) == (400, "teams[0].max_key_days")
    assert post("", b"").json()["errors"][0]["attr"] == "non_field_errors"
    settings.CONFIG_FILE_MAX_BYTES = 20
    assert post("", text).status_code == 413


# The page ------------------------------------------------------------------------------------------------------------------
def uploaded(client: Client, text: bytes) -> str:
    return client.post(URL, {"document": SimpleUploadedFile("c.json", text)}).content.decode()


def agreed(page: str) -> str:
    return re.findall(r'name="agreed" value="([^"]+)"', page)[0]


def test_the_page_shows_a_plan_and_does_exactly_that(root: User) -> None:
    client = page_of(root)
    page = uploaded(client, text_of(teams=[{"name": "search", "max_key_days": 30}, {"name": "<b>new</b>"}], routes=[]))
    assert "<b>new</b>" not in page
    assert "max_key_days" in page
    assert "routes main" in page, "what is left alone is said"
    assert Team.objects.count() == 1
    Team.objects.update(max_key_days=9)
    again = client.post(URL, {"agreed": agreed(page)}).content.decode()
    assert "has changed since" in again
    assert Team.objects.get().max_key_days == 9
    done = client.post(URL, {"agreed": agreed(again)}).content.decode()
    assert "This is done, and on record." in done
    assert Team.objects.get(name="search").max_key_days == 30
    assert 'name="agreed"' not in uploaded(client, text_of(teams=[{"name": "search"}])), "there is nothing to confirm"


def test_the_page_names_faults_and_takes_no_other_plan(root: User, settings: Any) -> None:
    client = page_of(root)
    page = uploaded(client, text_of(teams=[{"name": "search", "max_key_days": 0}]))
    assert "teams[0].max_key_days" in page
    assert "too old" in client.post(URL, {"agreed": "forged"}).content.decode()
    token = agreed(uploaded(client, text_of(teams=[{"name": "new"}])))
    other = page_of(User.objects.create_superuser("another"))
    assert other.post(URL, {"agreed": token}).status_code == 403
    settings.CONFIG_FILE_MAX_BYTES = 20
    assert "longer than 20 bytes" in uploaded(client, text_of(teams=[]))
    assert not Team.objects.filter(name="new").exists()


def test_the_page_hands_the_document_out(root: User) -> None:
    answer = page_of(root).post(URL, {"export": "1"})
    assert answer.content == config()
    assert "attachment" in answer["Content-Disposition"]
    assert PLANTED not in answer.content.decode()


@pytest.mark.parametrize(
    ("codenames", "may_export", "may_import"),
    [((), False, False), (("export_configversion",), True, False), (("import_configversion",), False, True)],
)
def test_each_has_a_permission_of_its_own(codenames: tuple[str, ...], may_export: bool, may_import: bool) -> None:
    user = person(*codenames)
    page, rest = page_of(user), rest_of(user)
    shown = page.get(URL)
    assert shown.status_code == (200 if may_export or may_import else 403)
    assert ("Download" in shown.content.decode()) == may_export
    assert ('type="file"' in shown.content.decode()) == may_import
    assert page.post(URL, {"export": "1"}).status_code == (200 if may_export else 403)
    assert page.post(URL, {"document": SimpleUploadedFile("c.json", b"{}")}).status_code == (200 if may_import else 403)
    assert rest.get("/api/v1/config/export").status_code == (200 if may_export else 403)
    answer = rest.post(IMPORT, data=text_of(), content_type="application/json")
    assert answer.status_code == (200 if may_import else 403)


def test_what_the_page_takes_is_what_the_house_has(root: User) -> None:
    whole = sections()
    Route.objects.all().delete()
    client = page_of(root)
    client.post(URL, {"agreed": agreed(uploaded(client, json.dumps(whole).encode()))})
    assert Route.objects.get().weights == {"gpt-4o": 3}
