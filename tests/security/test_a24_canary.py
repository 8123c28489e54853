"""A24, G20: after errors of every kind, no planted secret lies anywhere: database and its log, journal, our log, metrics, schema, pages and
tables.

What callers are told is searched too. One file is meant to hold secrets: settings.env.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from access.keys import API_KEY_PREFIX, TOKEN_PREFIX, shown
from tests.canary import Canary, sqlite_rows
from tests.e2e import wire
from tests.e2e.control import Control, unique, until
from tests.e2e.vendor import Vendor
from tests.faults.vendor_faults import FAULTS
from tests.live import LiveServer

pytestmark = pytest.mark.process
# Faults that only take time, or megabytes: nothing else is answered than by one of the others.
SLOW = {"fault-drip", "fault-stall", "fault-stall-midstream", "fault-slow-first-byte", "fault-huge", "fault-huge-line", "fault-gzip-bomb"}
PAGES = ("/metrics", "/api/schema/", "/docs", "/redoc", "/api/info", "/health", "/ready", "/api/health", "/nowhere", "/v1/models")
TABLES = (
    "usage",
    "usage/stats",
    "logs",
    "llm/providers",
    "llm/models",
    "llm/prices",
    "llm/routes",
    "teams",
    "api-keys",
    "budgets",
    "providers/status",
)
MAX_ADMIN_PAGES = 120


class Stage:
    """A gateway, a vendor that misbehaves, and every secret that either was given."""

    def __init__(self, server: LiveServer, vendor: Vendor) -> None:
        self.server, self.vendor = server, vendor
        self.planted: dict[str, str] = {}
        self.said: list[tuple[str, bytes]] = []
        for name in ("password", "api_key", "admin_token"):
            self.planted[name] = getattr(server, name)
        for line in (server.state_dir / "settings.env").read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                name, _, value = line.partition("=")
                self.planted[name] = value.partition(":")[2] or value
        self.control = Control(server.base_url, self.planted["admin_token"], self.planted["api_key"])

    def plant(self, name: str) -> str:
        self.planted[name] = value = f"sk-{secrets.token_urlsafe(30)}"
        return value

    def hear(self, where: str, method: str, path: str, body: Any = None, key: str = "", **headers: str) -> wire.Answer:
        if key:
            headers["Authorization"] = f"Bearer {key}"
        answer = wire.call(self.server.base_url, method, path, body=body, headers=headers)
        self.said.append((where, f"{answer.headers}".encode() + answer.body))
        return answer

    def canary(self) -> Canary:
        parts = [
            shown(value, prefix) for value in self.planted.values() for prefix in (API_KEY_PREFIX, TOKEN_PREFIX) if value.startswith(prefix)
        ]
        return Canary(self.planted, harmless=parts)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    vendor = Vendor()
    env = {"OUTBOUND_ALLOW": "127.0.0.0/8:*", "LLM_CONFIG_POLL_S": "0.1", "LLM_DRAIN_INTERVAL_S": "0.2", "MAX_RETRIES": "0"}
    try:
        with LiveServer(tmp_path_factory.mktemp("canary"), env=env) as server:
            stage = Stage(server, vendor)
            calls_that_fail(stage)
            rows_that_are_refused(stage)
            credentials_that_are_wrong(stage)
            until(lambda: len(server_rows(server)) >= 2 * (len(FAULTS) - len(SLOW)), "the journal is in the ledger", timeout_s=20)
            yield stage
    finally:
        vendor.close()


def server_rows(server: LiveServer) -> list[bytes]:
    return [value for where, value in sqlite_rows(server.state_dir / "llmcontrol.sqlite3") if where == "monitoring_requestlog.request_id"]


def calls_that_fail(stage: Stage) -> None:
    provider = stage.control.provider(stage.vendor.base_url, api_key=stage.plant("vendor key"), breaker={"fail_max": 1000})
    aliases = {name: stage.control.model(provider, name)["alias"] for name in sorted({"ok", *FAULTS} - SLOW)}
    listed = lambda: stage.hear("models", "GET", "/v1/models", key=stage.planted["api_key"]).body.decode()  # noqa: E731
    until(lambda: all(alias in listed() for alias in aliases.values()), "the models are in force")
    for name, alias in aliases.items():
        for fields in ({}, {"stream": True}):
            body = {"model": alias, "messages": wire.asking(f"{name}?"), **fields}
            stage.hear(f"call of {name} {fields}", "POST", "/v1/chat/completions", body, key=stage.planted["api_key"])
    for verb in ("test", "sync-models"):
        stage.hear(
            verb, "POST", f"/api/v1/llm/providers/{provider['id']}/{verb}", {}, Authorization=f"Token {stage.planted['admin_token']}"
        )


def rows_that_are_refused(stage: Stage) -> None:
    """Secrets in every field of a body that is refused, and in places where none belongs."""
    admin = {"Authorization": f"Token {stage.planted['admin_token']}"}
    good = {"name": unique("vendor"), "provider_type": "openai_compatible", "is_active": True}
    bodies: list[dict[str, Any]] = [
        {**good, "config": {"base_url": stage.vendor.base_url, "api_key": stage.plant("refused key") + " x"}},
        {**good, "config": {"base_url": "no address", "api_key": stage.plant("key beside a bad address")}},
        {**good, "config": {"base_url": stage.vendor.base_url, "api_keys": [stage.plant("doubled key")] * 2}},
        {**good, "provider_type": "unknown", "config": {"api_key": stage.plant("key of an unknown type")}},
        {**good, "config": {"base_url": f"https://user:{stage.plant('password in an address')}@example.com/v1"}},
    ]
    for body in bodies:
        answer = stage.hear("refused row", "POST", "/api/v1/llm/providers", body, **admin)
        assert answer.status == 400, answer.body
    provider = stage.control.provider(stage.vendor.base_url, api_key=stage.plant("key that is replaced"))
    (key,) = provider["keys"]
    path = f"/api/v1/llm/providers/{provider['id']}/keys/{key['id']}/rotate"
    stage.hear("rotate", "POST", path, {"api_key": stage.plant("replacing key")}, **admin)
    stage.hear("rotate, refused", "POST", path, {"api_key": stage.plant("refused replacing key") + "\n"}, **admin)


def credentials_that_are_wrong(stage: Stage) -> None:
    body = {"model": "m", "messages": wire.asking("?")}
    stage.hear("wrong key", "POST", "/v1/chat/completions", body, key=stage.plant("wrong key"))
    stage.hear("wrong key, x-api-key", "POST", "/v1/messages", body, **{"x-api-key": stage.plant("wrong key in x-api-key")})
    stage.hear("wrong token", "GET", "/api/v1/teams", Authorization=f"Token {stage.plant('wrong token')}")
    stage.hear("key in the address", "GET", f"/v1/models?api_key={stage.plant('key in the address')}")
    # Not heard: the login form repeats the address it was asked by, to who asked.
    wire.call(stage.server.base_url, "GET", f"/admin/login/?token={stage.plant('key in an admin address')}")


def admin_pages(stage: Stage) -> Iterator[tuple[str, bytes]]:
    """Every page that links lead to, as a superuser; forms are shown, none is sent but the login's, once with a wrong password."""
    with requests.Session() as session:
        login = f"{stage.server.base_url}/admin/login/"
        for password in (stage.plant("wrong password"), stage.planted["password"]):
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', session.get(login).text)
            assert token is not None
            form = {"username": stage.server.username, "password": password, "csrfmiddlewaretoken": token[1], "next": "/admin/"}
            yield "login", session.post(login, data=form, headers={"Referer": login}).content
        waiting, seen = ["/admin/"], set()
        while waiting and len(seen) < MAX_ADMIN_PAGES:
            path = waiting.pop(0)
            if path in seen or "logout" in path:
                continue
            seen.add(path)
            answer = session.get(stage.server.base_url + path)
            yield path, answer.content
            links = re.findall(r'href="(/admin/[^"#?]*)"', answer.text)
            waiting += [link for link in links if link not in seen]
        assert any("/providers/provider/" in path and "/change/" in path for path in seen), "the pages of providers were not reached"


def test_no_file_holds_one(stage: Stage) -> None:
    found = stage.canary().find_in_folder(stage.server.state_dir, leave_out=["settings.env"])
    assert found == {}
    names = {path.name for path in stage.server.state_dir.rglob("*")}
    assert {"llmcontrol.sqlite3", "llmcontrol.sqlite3-wal", "server.log", "journal"} <= names


def test_no_row_holds_one(stage: Stage) -> None:
    assert stage.canary().find_in_rows(sqlite_rows(stage.server.state_dir / "llmcontrol.sqlite3")) == {}


def test_no_answer_tells_one(stage: Stage) -> None:
    assert len(stage.said) > 50
    assert stage.canary().find_in_rows(stage.said) == {}


def test_no_page_or_table_shows_one(stage: Stage) -> None:
    seen: list[tuple[str, bytes]] = []
    for headers in ({}, {"Authorization": f"Token {stage.planted['admin_token']}"}):
        for path in (*PAGES, *(f"/api/v1/{table}" for table in TABLES)):
            for accept in ("*/*", "text/csv", "application/json"):
                answer = wire.call(stage.server.base_url, "GET", path, headers={**headers, "Accept": accept})
                seen.append((path, answer.body + str(answer.headers).encode()))
    assert stage.canary().find_in_rows(seen) == {}


def test_no_page_of_the_admin_shows_one(stage: Stage) -> None:
    pages = list(admin_pages(stage))
    assert len(pages) > 30
    assert stage.canary().find_in_rows(pages) == {}


def test_the_search_would_find_one(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"ERROR {stage.planted['vendor key'][5:17]}")
    assert stage.canary().find_in_folder(tmp_path) == {"log": {"vendor key"}}
    assert stage.canary().find_in_file(stage.server.state_dir / "settings.env")
