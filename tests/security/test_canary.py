"""The searcher of tests/canary.py finds what it is to find."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests import canary
from tests.canary import WINDOW, Canary
from tests.faults.leaks import Search
from tests.gateway_config.test_postgres import SERVER, require_server

SECRET = 'sk-planted/"µ"+q7Zr!x9Lw3=Kd'
OTHER = "zx81-Qwv77-mnop-5521-Trf"


@pytest.fixture
def searcher() -> Canary:
    return Canary({"vendor key": SECRET, "token": OTHER})


WRITTEN = {
    "plain": SECRET.encode(),
    "hex": SECRET.encode().hex().encode(),
    "HEX": SECRET.encode().hex().upper().encode(),
    "url": quote(SECRET).encode(),
    "url, all": quote(SECRET, safe="").encode(),
    "json": json.dumps({"key": SECRET}).encode(),
    "json in json": json.dumps(json.dumps({"key": "Bearer " + SECRET})).encode(),
    "python": repr({"key": SECRET}).encode(),
    **{
        f"{name} {before} {after}": encode(b"B" * before + SECRET.encode() + b"A" * after)
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode))
        for before in range(4)
        for after in range(3)
    },
}


@pytest.mark.parametrize("form", WRITTEN)
def test_it_finds_every_form(searcher: Canary, form: str) -> None:
    assert searcher.find(b"before " + WRITTEN[form] + b" after") == {"vendor key"}


@pytest.mark.parametrize("form", ["plain", "hex", "url, all", "base64 0 0", "base64 1 0", "base64 2 0"])
def test_it_finds_every_window_of_a_form(searcher: Canary, form: str) -> None:
    written = WRITTEN[form]
    core = written[3:-4]  # at the ends of base64, characters mix with what stands around
    for begin in range(len(core) - WINDOW + 1):
        assert searcher.find(b"\x00" + core[begin : begin + WINDOW] + b"\x00") == {"vendor key"}


def test_it_finds_nothing_in_what_is_shorter_or_other(searcher: Canary) -> None:
    assert searcher.find(SECRET[: WINDOW - 1] + " " + SECRET[-4:] + " sk-llmc-something-else") == set()
    assert searcher.find(os.urandom(100_000)) == set()


def test_it_names_each(searcher: Canary) -> None:
    assert searcher.find(SECRET + OTHER) == {"vendor key", "token"}


def test_a_common_beginning_may_be_harmless() -> None:
    prefix = "sk-planted-for-tests-"
    searcher = Canary({"key": prefix + "9f8e7d6c5b4a"}, harmless=[prefix])
    assert searcher.find(f"keys begin with {prefix}, as you know") == set()
    assert searcher.find("9f8e7d6c5b4a") == {"key"}


def test_what_would_be_found_everywhere_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Canary({"key": "short"})


def test_it_reads_files_over_the_ends_of_pieces(searcher: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "_CHUNK_BYTES", 10)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"." * 17 + SECRET.encode() + b"." * 9)
    (tmp_path / "settings.env").write_text(OTHER)
    (tmp_path / "clean").write_text("nothing")
    assert searcher.find_in_folder(tmp_path) == {"deep/log": {"vendor key"}, "settings.env": {"token"}}
    assert searcher.find_in_folder(tmp_path, leave_out=["settings.env"]) == {"deep/log": {"vendor key"}}


def test_it_reads_rows_of_sqlite_and_what_is_left_of_those_that_are_gone(searcher: Canary, tmp_path: Path) -> None:
    file = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (id INTEGER, text TEXT, data BLOB)")
        connection.execute("INSERT INTO t VALUES (1, ?, ?)", [f"x{SECRET}y", OTHER.encode()])
        assert searcher.find_in_rows(canary.sqlite_rows(file)) == {"t.text": {"vendor key"}, "t.data": {"token"}}
        connection.execute("DELETE FROM t")
        assert searcher.find_in_rows(canary.sqlite_rows(file)) == {}
        assert "db.sqlite3-wal" in searcher.find_in_folder(tmp_path)


def test_it_reads_rows_of_postgres(searcher: Canary) -> None:
    require_server()
    name = f"llmcontrol_canary_{os.getpid()}"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with psycopg.connect(f"{SERVER}/{name}", autocommit=True) as connection:
                connection.execute("CREATE TABLE t (id int, text text, data bytea, more jsonb)")
                connection.execute("INSERT INTO t VALUES (1, %s, %s, %s)", [SECRET, OTHER.encode(), json.dumps({"k": [OTHER]})])
            found = searcher.find_in_rows(canary.postgres_rows(f"{SERVER}/{name}"))
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert found == {"t.text": {"vendor key"}, "t.data": {"token"}, "t.more": {"token"}}


# The search after every fault test (tests/faults/leaks.py), of a stage without processes -------------------------------------


def a_stage(folder: Path) -> Any:
    state, services = folder / "machine-0", folder / "services"
    for made in (state / "journal", services / "postgres" / "pg_wal", services / "postgres" / "base"):
        made.mkdir(parents=True)
    (folder / "machine-0.log").write_text("INFO nothing to see\n")
    machine = SimpleNamespace(log=folder / "machine-0.log", state_dir=state, running=False)
    key = f"sk-llmc-{'q7Zt' * 10}"
    planted = ["1:bm90LWEta2V5LWJ1dC1sb25nLWVub3VnaC4uLi4=", "sk-planted-5f0c3a9b7d21e64c8a02d1f7"]
    return SimpleNamespace(
        folder=folder, secrets=planted, key=key, machines=[machine], services=SimpleNamespace(folder=services, postgres=None), token="t"
    )


@pytest.mark.parametrize("place", ["machine-0.log", "machine-0/journal/1.journal", "services/postgres/pg_wal/0001", "services/db.sqlite3"])
@pytest.mark.parametrize("which", [0, 1, "key"])
def test_the_search_after_a_fault_finds_it(tmp_path: Path, place: str, which: Any) -> None:
    stage, search = a_stage(tmp_path), Search()
    (tmp_path / "machine-0" / "journal" / "1.journal").write_bytes(f"{stage.key[:12]}… …{stage.key[-4:]}".encode())
    assert search.leaks(stage) == [], "what people are shown of a key is no leak"
    secret = stage.key if which == "key" else stage.secrets[which]
    with (tmp_path / place).open("a") as file:
        file.write(f"\nkey={secret[9:30]}\n")
    (leak,) = search.leaks(stage)
    assert place.rpartition("/")[2] in leak
    assert secret not in leak
    assert (search.stages, search.answers) == (2, 0)
