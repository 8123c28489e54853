"""A51: a first start has no password, key or page that others know of, and debug pages are for this machine alone."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.auth.models import User
from django.test import Client

from access.models import ApiKey, PersonalToken
from core.errors import ConfigurationError
from llmcontrol import bootstrap, first_start, server
from tests.live import manage
from tests.security.test_a12_authorisation_table import _PARAMETER, routes

GUESSES = ("", "admin", "password", "llmcontrol", "changeme", "admin123", "quickstart", first_start.USERNAME, first_start.TEAM)
SECRETS = {"SECRET_KEY": "s" * 40, "API_KEY_PEPPER": "p" * 40, "KEY_ENCRYPTION_KEYS": "1:" + "QUJD" * 10 + "QUI="}


@pytest.mark.process
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_nobody_gave_is_not_made_up(tmp_path: Path, name: str) -> None:
    given = {other: value for other, value in SECRETS.items() if other != name}
    done = manage("serve", "--port", "0", env={**given, "LLM_STATE_DIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"llmcontrol does not start: {name} is not set"), done.stderr


def test_settings_has_no_secret_of_its_own() -> None:
    source = (Path(configured.BASE_DIR) / "llmcontrol" / "settings.py").read_text()
    assert "insecure" not in source
    for name in SECRETS:
        assert f'{name} = "' not in source


def test_what_is_generated_is_the_owners_alone(tmp_path: Path) -> None:
    state_dir = bootstrap.make_state_dir(tmp_path / "state")
    bootstrap.write_settings(state_dir, {})
    assert [path.stat().st_mode & 0o077 for path in (state_dir, state_dir / "settings.env")] == [0, 0]


@pytest.mark.django_db
def test_the_administrators_password_is_nobodys_guess(settings: Any) -> None:
    settings.LOGIN_TRIES = 1_000
    made = first_start.ensure_credentials(reset=False)
    assert made.password is not None
    assert len(made.password) >= 20
    for guess in GUESSES:
        assert not Client().login(username=made.username, password=guess), guess
    assert Client().login(username=made.username, password=made.password)
    again = first_start.ensure_credentials(reset=True)
    assert not {made.password, made.api_key, made.admin_token} & {again.password, again.api_key, again.admin_token}


@pytest.mark.django_db
def test_no_page_makes_a_first_user() -> None:
    """On an empty installation a stranger is sent to log in, or refused, everywhere; nothing is there to be claimed."""
    form = {"username": "mallory", "password": "x" * 20, "password1": "x" * 20, "password2": "x" * 20, "is_superuser": "on"}
    stranger = Client()
    for route in sorted(set(routes())):
        stranger.post(_PARAMETER.sub("1", route), form)
    assert [model.objects.count() for model in (User, ApiKey, PersonalToken)] == [0, 0, 0]


@pytest.mark.parametrize(("host", "debug", "served"), [("0.0.0.0", True, False), ("0.0.0.0", False, True), ("127.0.0.1", True, True)])
def test_debug_pages_are_for_this_machine(settings: Any, monkeypatch: pytest.MonkeyPatch, host: str, debug: bool, served: bool) -> None:
    """Nothing is bound to an address that others reach: the call is left out here."""
    monkeypatch.setattr(socket.socket, "bind", lambda self, address: None)
    settings.DEBUG = debug
    if served:
        server.bind(host, 0).close()
        return
    with pytest.raises(ConfigurationError, match="DEBUG is on"):
        server.bind(host, 0)


@pytest.mark.process
def test_serve_says_so_in_one_line(tmp_path: Path) -> None:
    env = {**SECRETS, "LLM_STATE_DIR": str(tmp_path), "DEBUG": "true"}
    done = manage("serve", "--host", "0.0.0.0", "--port", "0", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "DEBUG is on" in done.stderr
    assert len(done.stderr.splitlines()) == 1
