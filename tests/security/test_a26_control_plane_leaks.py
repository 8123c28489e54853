"""A03, A26, A27, A30: what the control plane shows, searches, exports and says where it fails."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as site_settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from rest_framework.test import APIClient

from access.models import Team
from access.services import create_api_key, create_personal_token
from core.secrets import Secret
from models_registry.models import LLMModel
from monitoring.api.csv import CSVRenderer
from providers.models import Provider
from providers.services import create_provider
from tests.e2e import wire
from tests.security.house import House
from tests.undrawn import undrawn

PLANTED = "sk-planted-in-the-control-plane-0123456789"


class Planted:
    def __init__(self) -> None:
        self.provider = create_provider(name="vendor", provider_type="openai", secrets=[PLANTED])
        LLMModel.objects.create(provider=self.provider, model_id="m", alias="m")
        self.key, key = create_api_key(name="k", team=Team.objects.create(name="team"))
        self.root = User.objects.create_superuser("root", password="a-long-password-of-root")
        token = create_personal_token(self.root, "t")[1]
        sealed = bytes(self.provider.keys.get().secret)
        self.texts = [PLANTED, PLANTED[3:19], key, token, sealed.hex(), site_settings.SECRET_KEY, site_settings.API_KEY_PEPPER.decode()]
        self.client, self.rest = Client(raise_request_exception=False), APIClient(raise_request_exception=False)
        self.client.force_login(self.root)
        self.rest.credentials(HTTP_AUTHORIZATION=f"Token {token}")

    def seen_in(self, response: Any) -> list[str]:
        shown = response.content.decode(errors="replace") + str(response.headers)
        return [text for text in self.texts if text in shown]


@pytest.fixture
def planted(db: None) -> Planted:
    return Planted()


# A26 (tests/admin/test_pages.py opens every page; here, what is left) -------------------------------------------------


def test_a_form_that_comes_back_does_not_bring_a_key_with_it(planted: Planted) -> None:
    typed = "sk-typed-into-a-form-that-fails-42"
    body = {"name": "not a name!", "provider_type": "openai", "base_url": "nonsense", "new_keys": typed}
    response = planted.client.post("/admin/providers/provider/add/", body)
    assert response.status_code == 200
    assert "not a valid address" in response.content.decode() or "errornote" in response.content.decode()
    assert typed not in response.content.decode()


@pytest.mark.parametrize("page", ["providers_provider", "access_apikey", "access_personaltoken", "access_team"])
def test_what_is_asked_before_a_deletion_names_no_secret(planted: Planted, page: str) -> None:
    model = next(model for model in admin.site._registry if f"{model._meta.app_label}_{model._meta.model_name}" == page)
    row = model._default_manager.first()
    assert row is not None
    response = planted.client.get(reverse(f"admin:{page}_delete", args=[row.pk]))
    assert response.status_code in (200, 403)
    assert planted.seen_in(response) == []


@pytest.mark.parametrize("path", ["providers", "keys", "models", "teams"])
@pytest.mark.parametrize(
    "lookup",
    [
        "secret__startswith",
        "keys__secret__startswith",
        "api_key__startswith",
        "digest",
        "digest__gt",
        "keys__last4",
        "password",
        "user__password",
    ],
)
def test_no_list_is_narrowed_by_a_secret(planted: Planted, path: str, lookup: str) -> None:
    response = planted.rest.get(f"/api/v1/llm/{path}", {lookup: PLANTED[:5]})
    assert response.status_code == 400
    assert lookup in response.content.decode()


def test_no_admin_offers_a_secret_to_search_order_or_complete() -> None:
    secret = {"secret", "digest", "password", "key", "token"}
    for model, site in admin.site._registry.items():
        if model._meta.app_label == "auth":
            continue
        offered = [*site.search_fields, *(site.ordering or ()), *site.list_filter, *site.autocomplete_fields]
        assert not [name for name in offered if str(name).split("__")[-1] in secret], model


# A27 ------------------------------------------------------------------------------------------------------------------


def paths() -> list[str]:
    return [
        "/admin/",
        "/admin/providers/provider/",
        "/admin/costs/",
        "/admin/decrypt-health/",
        "/api/v1/llm/providers",
        "/api/v1/requests",
        "/api/info",
        "/metrics",
        "/docs",
    ]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query fails, with the secret in the exception and in the locals on its way."""

    def fail(self: Any, *_: Any, **__: Any) -> None:
        held = PLANTED
        raise RuntimeError(f"it broke with {held}")

    from django.db.models.sql.compiler import SQLCompiler

    monkeypatch.setattr(SQLCompiler, "execute_sql", fail)


@pytest.mark.parametrize("path", paths())
def test_a_failure_says_nothing_of_why(planted: Planted, broken: None, path: str) -> None:
    for client in (planted.client, planted.rest):
        response = client.get(path)
        assert response.status_code in (200, 302, 401, 403, 500)
        assert planted.seen_in(response) == []
        assert b"Traceback" not in response.content
        assert b"it broke" not in response.content
        assert str(site_settings.BASE_DIR).encode() not in response.content
        assert b"site-packages" not in response.content


def test_nothing_that_holds_a_secret_prints_it(planted: Planted) -> None:
    for model in apps.get_models():
        for row in model._default_manager.all()[:5]:
            shown = f"{row!r} {row}"
            assert not [text for text in planted.texts if text in shown], model
    assert PLANTED not in repr(Secret(PLANTED)) + str(Secret(PLANTED)) + f"{Secret(PLANTED)}"
    spec = Provider.objects.get().keys.get().open()
    assert PLANTED not in repr(spec)


@pytest.mark.process
@pytest.mark.parametrize("path", ["/metrics", "/api/schema/", "/api/info", "/docs", "/redoc", "/api/v1/llm/keys", "/admin/", "/api/v1/"])
def test_a_stranger_learns_nothing(house: House, path: str) -> None:
    for accept in ("*/*", "text/html", "application/json"):
        answer = wire.call(house.live.base_url, "GET", path, headers={"Accept": accept})
        assert answer.status in (302, 401, 403, 404, 406), (path, answer)
        _says_no_version(answer)


@pytest.mark.process
@pytest.mark.parametrize("path", ["/health", "/ready", "/api/health", "/", "/v1/models", "/nothing", "/static/none", "/admin/login/"])
def test_what_is_open_says_no_version(house: House, path: str) -> None:
    answer = wire.call(house.live.base_url, "GET", path)
    _says_no_version(answer)
    for secret in (house.key, str(house.live.admin_token), str(house.live.state_dir)):
        assert secret.encode() not in answer.body


def _says_no_version(answer: wire.Answer) -> None:
    assert not {"server", "x-powered-by", "x-django-version", "via"} & set(answer.headers)
    for name in (b"Django/", b"Python/", b"uvicorn", b"DJANGO_SETTINGS"):
        assert name not in answer.body


def test_there_is_no_browsable_api(planted: Planted) -> None:
    response = planted.rest.get("/api/v1/llm/providers", HTTP_ACCEPT="text/html")
    assert response.status_code in (200, 406)
    assert response.headers["Content-Type"].startswith("application/json")


# A03 ------------------------------------------------------------------------------------------------------------------

SEARCHES = [
    "%" * 5000,
    "_" * 5000,
    "%_" * 100,
    "\\" * 200,
    "' OR 1=1 --",
    "a" * 2**16,
    "\x00",
    "(a+)+$" * 50,
    "é" * 3000,
    " ".join("abcdefgh" * 30),
]
SEARCHED = [model for model, site in admin.site._registry.items() if site.search_fields]


@pytest.mark.parametrize("number", range(len(SEARCHES)))
def test_a_search_is_text_and_its_work_is_bounded(planted: Planted, number: int) -> None:
    for model in SEARCHED:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        with CaptureQueriesContext(connection) as queries, undrawn():
            response = planted.client.get(url, {"q": SEARCHES[number]})
        assert response.status_code in (200, 302, 400), url
        assert max((len(query["sql"]) for query in queries), default=0) < 20_000, url


def test_a_percent_sign_finds_a_percent_sign(planted: Planted) -> None:
    Team.objects.create(name="100% wool")
    for text, found in (("%", 1), ("_", 0), ("100%", 1), ("wo_l", 0)):
        response = planted.client.get("/admin/access/team/", {"q": text})
        assert response.context["cl"].result_count == found, text


# A30 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begins", ["=", "+", "-", "@", "\t", "\r", "=cmd|' /C calc'!A0", "@SUM(1+1)*cmd|' /C calc'!A0", '=HYPERLINK("http://x")']
)
def test_no_cell_of_an_export_is_a_formula(begins: str) -> None:
    text = CSVRenderer().render({"rows": [{"name": begins + "1", "cost": {"USD": begins}}]})
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
