"""A wrong value stops the start and names its variable; a secret's value is never repeated."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from llmcontrol.environment import Environment, load_env_file
from llmcontrol.throwaway import made_for
from tests.live import manage

KEY = base64.b64encode(bytes(32)).decode()
OTHER_KEY = base64.b64encode(bytes(range(32))).decode()


def refused(call, *mentions: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        call()
    for text in mentions:
        assert text in str(caught.value)


def test_defaults_where_nothing_is_set():
    env = Environment({})
    assert env.text("A", "x") == "x"
    assert env.integer("A", 5, 1, 9) == 5
    assert env.number("A", 0.5, 0, 1) == 0.5
    assert env.boolean("A", True) is True
    assert env.items("A", "x, y,") == ["x", "y"]


def test_values_are_read():
    env = Environment({"I": "7", "N": "0.25", "B": "Off", "L": " a ,b", "K": f"1:{KEY},12:{OTHER_KEY}"})
    assert env.integer("I", 5, 1, 9) == 7
    assert env.number("N", 1, 0, 2) == 0.25
    assert env.boolean("B", True) is False
    assert env.items("L") == ["a", "b"]
    assert env.keys("K", "hint") == {1: bytes(32), 12: bytes(range(32))}


@pytest.mark.parametrize("value", ["x", "10", "0", "1.5", "-3", "--1", "٣", "1e3", "1_0", "1" * 5000])
def test_a_bad_whole_number(value: str):
    refused(lambda: Environment({"LLM_X": value}).integer("LLM_X", 5, 1, 9), "LLM_X", "from 1 to 9")


@pytest.mark.parametrize("value", ["x", "nan", "inf", "-1", "2.1"])
def test_a_bad_number(value: str):
    refused(lambda: Environment({"LLM_X": value}).number("LLM_X", 1, 0, 2), "LLM_X", "from 0 to 2")


def test_a_bad_truth():
    refused(lambda: Environment({"LLM_X": "maybe"}).boolean("LLM_X", True), "LLM_X", "true or false")


def test_a_reader_reads_the_file_each_time(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("first\n")
    read = Environment({"TOKEN_FILE": str(file)}).reader("TOKEN")
    assert read() == "first"
    file.write_text("second\n")
    assert read() == "second"


def test_a_key_may_be_elsewhere_also_twice():
    arn = "aws:arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab"
    env = Environment({"K": f"1:{KEY},2:vault:a-key,3:vault:a-key,4:{arn}"})
    assert env.keys("K", "") == {1: bytes(32), 2: "vault:a-key", 3: "vault:a-key", 4: arn}


@pytest.mark.parametrize("value", ["1:gcp:key", "1:vault:", "1:vault:../sys/seal", "1:aws:", "1:vault:a b"])
def test_elsewhere_is_one_of_two_services(value: str):
    refused(lambda: Environment({"KEKS": value}).keys("KEKS", ""), "KEKS", "ID:vault:NAME or ID:aws:KEY")


@pytest.mark.parametrize("value", ["c2VjcmV0", "1:c2VjcmV0", f"0:{KEY}", f"256:{KEY}", f"x:{KEY}", f"1:{KEY},2:c2VjcmV0", "1:§"])
def test_bad_keys_are_named_and_not_repeated(value: str):
    with pytest.raises(ConfigurationError) as caught:
        Environment({"KEKS": value}).keys("KEKS", "make one")
    assert "KEKS" in str(caught.value)
    assert value not in str(caught.value)


def test_two_keys_of_one_id_are_refused():
    refused(lambda: Environment({"KEKS": f"1:{KEY}, 01:{OTHER_KEY}"}).keys("KEKS", ""), "KEKS", "id 1 is there twice")


def test_a_copy_of_a_key_under_another_id_is_refused():
    """It would look like a rotation and be none."""
    refused(lambda: Environment({"KEKS": f"1:{KEY},2:{KEY}"}).keys("KEKS", ""), "KEKS", "key 2 is a copy")


@pytest.mark.parametrize("value", ["", " ", ",", f"1:{KEY},", "1" * 5000])
def test_a_ring_without_a_key_in_some_place_is_refused(value: str):
    refused(lambda: Environment({"KEKS": value}).keys("KEKS", ""), "KEKS")


def test_a_missing_secret_is_named_with_the_way_out():
    refused(lambda: Environment({}).required("SECRET", "`make run` writes one"), "SECRET is not set", "make run")


def test_a_secret_from_a_file(tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text("swordfish\n")
    assert Environment({"SECRET_FILE": str(file)}).required("SECRET", "") == "swordfish"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    refused(lambda: Environment({"SECRET_FILE": str(tmp_path / "none")}).text("SECRET"), "SECRET_FILE", "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    refused(lambda: Environment({"SECRET_FILE": str(tmp_path / "bytes")}).text("SECRET"), "SECRET_FILE")


def test_a_value_given_twice_is_refused(tmp_path: Path):
    refused(lambda: Environment({"SECRET": "a", "SECRET_FILE": str(tmp_path)}).text("SECRET"), "SECRET and SECRET_FILE")


def test_the_environment_comes_before_settings_env(tmp_path: Path):
    file = tmp_path / "settings.env"
    file.write_text("# a comment\n\nA=from file\nB = two = 2 \n")
    environ = {"A": "from environment"}
    load_env_file(file, environ)
    assert environ == {"A": "from environment", "B": "two = 2"}


def test_no_settings_env_is_no_error(tmp_path: Path):
    environ: dict[str, str] = {}
    load_env_file(tmp_path / "settings.env", environ)
    assert environ == {}


@pytest.mark.parametrize("line", ["no equals sign", "9X=1", "A B=1", "=1"])
def test_a_bad_line_of_settings_env_is_numbered(tmp_path: Path, line: str):
    file = tmp_path / "settings.env"
    file.write_text(f"A=1\n{line}\n")
    refused(lambda: load_env_file(file, {}), str(file), "line 2")


GOOD = {"SECRET_KEY": "s" * 40, "KEY_ENCRYPTION_KEYS": f"1:{KEY}", "API_KEY_PEPPER": "p" * 40}
BAD = {
    "SECRET_KEY": "short",
    "KEY_ENCRYPTION_KEYS": f"1:{KEY},1:{OTHER_KEY}",
    "LLM_PORT": "eighty",
    "DEBUG": "perhaps",
    "LLM_MAX_BODY_BYTES": "1",
    "LLM_HEAD_TIMEOUT_S": "0",
    "DATABASE_URL": "mysql://localhost/x",
    "OUTBOUND_ALLOW": "127.0.0.1",
}


@pytest.mark.process
@pytest.mark.parametrize(("name", "value"), BAD.items())
def test_a_wrong_variable_ends_the_start_in_one_line(tmp_path: Path, name: str, value: str):
    done = manage("serve", env={**GOOD, "LLM_STATE_DIR": str(tmp_path), name: value})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("llmcontrol does not start: ")
    assert name in line
    assert done.stdout == ""


@pytest.mark.process
def test_a_key_at_a_service_that_nobody_told_us_of_ends_the_start_in_one_line(tmp_path: Path):
    done = manage("serve", env={**GOOD, "LLM_STATE_DIR": str(tmp_path), "KEY_ENCRYPTION_KEYS": "1:vault:llmcontrol"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("llmcontrol does not start: KEY_ENCRYPTION_KEYS names vault:llmcontrol: set VAULT_ADDR")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "help",
        "help serve",
        "serve --help",
        "--version",
        "check",
        "check --tag models",
        "makemigrations --check",
        "translations",
        "spectacular",
    ],
)
def test_commands_that_touch_no_secret_have_some_made_for_them(command: str):
    made, again = (made_for(["./manage.py", *command.split()], {}) for _ in range(2))
    assert (len(made["SECRET_KEY"]), made["DATABASE_URL"]) == (64, "sqlite://:memory:")
    assert made["SECRET_KEY"] != again["SECRET_KEY"]


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "worker", "migrate", "shell", "createsuperuser", "backup", "restore", "replay_journal", "verify_audit", "sqlmigrate"),
        *("check --database default", "check --database=default", "check --deploy", "dbshell -- -h", "of_tomorrow"),
    ],
)
def test_all_others_want_their_own(command: str):
    assert made_for(["manage.py", *command.split()], {}) == {}


def test_where_some_are_set_the_missing_ones_are_missing():
    assert made_for(["manage.py", "check"], {"SECRET_KEY": "s"}) == made_for(["manage.py", "check"], {"API_KEY_PEPPER_FILE": "f"}) == {}
    assert made_for(["uvicorn", "check"], {}) == made_for([], {}) == {}


@pytest.mark.process
def test_migrations_are_compared_on_a_fresh_clone(tmp_path: Path):
    done = manage("makemigrations", "--check", "--dry-run", env={"LLM_STATE_DIR": str(tmp_path / "var")})
    assert (done.returncode, done.stdout, done.stderr) == (0, "No changes detected\n", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.process
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_nothing_but_quickstart_starts_without_secrets(tmp_path: Path, command: str):
    done = manage(command, env={"LLM_STATE_DIR": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["llmcontrol does not start: SECRET_KEY is not set: `make run` writes one"]
    assert os.listdir(tmp_path) == []
