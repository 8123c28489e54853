"""A35: under the production settings that are shipped, Django has nothing to say, and every answer carries its headers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live import ROOT, manage

pytestmark = pytest.mark.process
SECRETS = {
    "SECRET_KEY": base64.b64encode(os.urandom(48)).decode(),
    "API_KEY_PEPPER": base64.b64encode(os.urandom(48)).decode(),
    "KEY_ENCRYPTION_KEYS": "1:" + base64.b64encode(os.urandom(32)).decode(),
}
# Asked through Django itself, as behind a proxy that speaks TLS; prints status and headers.
ASK = """
import json
from django.test import Client
pages = ["/admin/login/", "/api/v1/teams", "/docs", "/metrics", "/nowhere", "/api/info"]
client = Client(HTTP_HOST="llm.example.com")

def ask(path, **headers):
    answer = client.get(path, **headers)
    return [answer.status_code, dict(answer.headers)]

print(json.dumps({
    **{path: ask(path, HTTP_X_FORWARDED_PROTO="https") for path in pages},
    "plain": ask("/admin/login/"),
    "cookies": {name: [bool(c["secure"]), bool(c["httponly"]), c["samesite"]] for name, c in client.cookies.items()},
}))
"""


def production() -> dict[str, str]:
    lines = (ROOT / "deploy" / "production.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_check_deploy_is_clean(tmp_path: Path) -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING", env={**SECRETS, **production(), "LLM_STATE_DIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "System check identified no issues (0 silenced).\n"), done.stderr


@pytest.mark.parametrize("name", ["SECURE_COOKIES", "HTTPS_REDIRECT", "HSTS_S"])
def test_check_deploy_would_say_what_is_missing(tmp_path: Path, name: str) -> None:
    env = {**SECRETS, **production(), "LLM_STATE_DIR": str(tmp_path)}
    del env[name]
    done = manage("check", "--deploy", "--fail-level", "WARNING", env=env)
    assert done.returncode == 1
    assert "security.W" in done.stderr


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("production")
    env = {
        "PATH": "/usr/bin:/bin",
        **SECRETS,
        **production(),
        "LLM_STATE_DIR": str(folder),
        "DJANGO_SETTINGS_MODULE": "llmcontrol.settings",
    }
    command = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*command, "migrate", "-v", "0"], env=env, check=True, timeout=120)
    done = subprocess.run([*command, "shell", "-v", "0", "-c", ASK], env=env, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_answer_carries_its_headers(answers: dict[str, Any]) -> None:
    pages = {path: answer for path, answer in answers.items() if path.startswith("/")}
    assert len(pages) == 6
    for path, (status, headers) in pages.items():
        assert status < 500, path
        assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains; preload", path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["Referrer-Policy"] == "same-origin", path
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin", path
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy, path
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0], path
        assert "Server" not in headers, path
        assert "no-store" in headers["Cache-Control"], path


def test_plain_http_is_sent_to_https(answers: dict[str, Any]) -> None:
    status, headers = answers["plain"]
    assert (status, headers["Location"]) == (301, "https://llm.example.com/admin/login/")


def test_cookies_travel_over_tls_alone(answers: dict[str, Any]) -> None:
    assert answers["cookies"], "the login page sets one"
    for name, (secure, http_only, same_site) in answers["cookies"].items():
        assert secure, name
        assert same_site == "Lax", name
        assert http_only or name == "csrftoken", name


def test_debug_pages_are_off_unless_asked_for() -> None:
    assert "DEBUG" not in production()
    assert 'DEBUG = env.boolean("DEBUG", False)' in (ROOT / "llmcontrol" / "settings.py").read_text()
