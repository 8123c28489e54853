"""The folder, the secrets and the address that quickstart makes before settings are read."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from llmcontrol import bootstrap
from llmcontrol.environment import Environment, load_env_file
from providers import local_model

SECRETS = {"SECRET_KEY", "KEY_ENCRYPTION_KEYS", "API_KEY_PEPPER"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_model, "model_file", lambda: tmp_path / "model.gguf")


def written(state_dir: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    load_env_file(state_dir / "settings.env", found)
    return found


def test_settings_env_has_usable_secrets_that_only_the_owner_reads(tmp_path: Path):
    bootstrap.write_settings(tmp_path, {})
    assert (tmp_path / "settings.env").stat().st_mode & 0o777 == 0o600
    values = written(tmp_path)
    assert set(values) == SECRETS
    assert len(values["SECRET_KEY"]) >= 32
    assert len(values["API_KEY_PEPPER"]) >= 32
    assert set(Environment(values).keys("KEY_ENCRYPTION_KEYS", "")) == {1}
    assert [path.name for path in tmp_path.iterdir()] == ["settings.env"]


def test_secrets_differ_from_folder_to_folder(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        bootstrap.write_settings(tmp_path / name, {})
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    assert all(one[name] != two[name] for name in SECRETS)


def test_settings_env_is_never_overwritten(tmp_path: Path):
    (tmp_path / "settings.env").write_text("SECRET_KEY=mine\n")
    bootstrap.write_settings(tmp_path, {})
    assert (tmp_path / "settings.env").read_text() == "SECRET_KEY=mine\n"


def test_a_secret_that_the_environment_gives_is_not_written(tmp_path: Path):
    bootstrap.write_settings(tmp_path, {"SECRET_KEY": "given", "API_KEY_PEPPER_FILE": "/run/secrets/pepper"})
    assert set(written(tmp_path)) == {"KEY_ENCRYPTION_KEYS"}


def test_nothing_is_written_where_the_environment_gives_everything(tmp_path: Path):
    bootstrap.write_settings(tmp_path, dict.fromkeys(SECRETS, "given"))
    assert list(tmp_path.iterdir()) == []


def test_the_state_folder_is_the_owners_alone(tmp_path: Path):
    made = bootstrap.make_state_dir(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_state_folder_that_cannot_be_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"LLM_STATE_DIR.*file"):
        bootstrap.make_state_dir(tmp_path / "file")


@pytest.mark.usefixtures("installed")
def test_prepare_lets_out_to_the_local_model_alone(tmp_path: Path):
    environ = {"LLM_STATE_DIR": str(tmp_path)}
    bootstrap.prepare(["--port", "0"], environ)
    assert environ["OUTBOUND_ALLOW"] == f"127.0.0.1/32:{bootstrap.model_port(tmp_path)}"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("source", ["environment", "file variable", "settings.env"])
def test_prepare_keeps_what_the_administrator_allows(tmp_path: Path, source: str):
    environ = {"LLM_STATE_DIR": str(tmp_path)}
    if source == "environment":
        environ["OUTBOUND_ALLOW"] = "10.0.0.0/8:*"
    elif source == "file variable":
        (tmp_path / "allow").write_text("10.0.0.0/8:*\n")
        environ["OUTBOUND_ALLOW_FILE"] = str(tmp_path / "allow")
    else:
        (tmp_path / "settings.env").write_text("OUTBOUND_ALLOW=10.0.0.0/8:*\n")
    bootstrap.prepare([], environ)
    assert Environment(environ).items("OUTBOUND_ALLOW") == ["10.0.0.0/8:*", f"127.0.0.1/32:{bootstrap.model_port(tmp_path)}"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("model", ["echo", "none"])
def test_prepare_lets_nothing_out_where_no_local_model_runs(tmp_path: Path, model: str):
    environ = {"LLM_STATE_DIR": str(tmp_path)}
    bootstrap.prepare(["--model", model], environ)
    assert "OUTBOUND_ALLOW" not in environ
    assert bootstrap.model_port(tmp_path) is None


@pytest.mark.usefixtures("installed")
def test_the_option_comes_before_the_variable(tmp_path: Path):
    environ = {"LLM_STATE_DIR": str(tmp_path / "variable")}
    bootstrap.prepare(["--state-dir", str(tmp_path / "option")], environ)
    assert environ["LLM_STATE_DIR"] == str(tmp_path / "option")
    assert not (tmp_path / "variable").exists()


def test_the_models_port_stays_while_it_is_free(tmp_path: Path):
    first = bootstrap._choose_model_port(tmp_path)
    assert bootstrap._choose_model_port(tmp_path) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        second = bootstrap._choose_model_port(tmp_path)
    assert second != first
    assert bootstrap.model_port(tmp_path) == second


@pytest.mark.parametrize("content", ["", "x", "0", "70000"])
def test_a_spoilt_port_file_is_no_port(tmp_path: Path, content: str):
    (tmp_path / "local-model.port").write_text(content)
    assert bootstrap.model_port(tmp_path) is None


def test_one_state_folder_takes_one_quickstart(tmp_path: Path):
    bootstrap._hold_alone(tmp_path)
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        bootstrap._hold_alone(tmp_path)


@pytest.mark.parametrize("text", ["x", "-1", "65536", "", "٣", "1" * 5000])
def test_a_port_on_the_command_line_is_bounded(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number from 0 to 65535"):
        bootstrap.port_number(text)


@pytest.mark.parametrize("text", ["0", "257", "two"])
def test_workers_on_the_command_line_are_bounded(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number from 1 to 256"):
        bootstrap.worker_count(text)
