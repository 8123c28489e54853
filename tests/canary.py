"""Looks for planted secrets wherever they might have come to lie: plain, encoded, or a piece of twelve characters of one.

A secret's forms are: as it is, base64 (standard and URL-safe, at all three alignments), hex in either case, URL-encoded,
JSON-escaped. Of each form every window of `WINDOW` characters counts. What a person is shown of a secret, such as its last
four characters, is shorter than that.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg

WINDOW = 12
_GRAM, _STRIDE = 8, 5  # WINDOW - _GRAM + 1
_CHUNK_BYTES = 8 * 2**20


def forms(secret: str) -> Iterator[bytes]:
    """Every way of writing it, at least `WINDOW` bytes long. Base64 is cut to what depends on the secret alone."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield quote(secret, safe="").encode()
    yield "".join(f"%{byte:02x}" for byte in raw).encode()
    yield "".join(f"%{byte:02X}" for byte in raw).encode()
    yield json.dumps(secret)[1:-1].encode()
    yield "".join(f"\\u{ord(character):04x}" for character in secret).encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        # The first characters mix in what stands before, the last what follows.
        inner = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


class Canary:
    """`find` says which of the secrets are in some bytes; by name, never by value. `harmless`: texts that stand in secrets and elsewhere,
    such as a common prefix; windows that lie in them count for nothing."""

    def __init__(self, planted: Mapping[str, str], harmless: Iterable[str] = ()) -> None:
        ignored = {window for text in harmless for form in forms(text) for window in _windows(form)}
        self._windows: dict[bytes, str] = {}
        for name, secret in planted.items():
            if len(secret) < WINDOW:
                raise ValueError(f"{name} is shorter than {WINDOW} characters: it would be found everywhere")
            for form in forms(secret):
                self._windows.update(dict.fromkeys(_windows(form) - ignored, name))
        # A window of 12 holds a piece of 8 that begins at a multiple of 5, wherever it lies: looking at these is enough to find it.
        self._grams = {window[begin : begin + _GRAM] for window in self._windows for begin in range(_STRIDE)}

    def find(self, data: bytes | str) -> set[str]:
        data = data.encode() if isinstance(data, str) else data
        grams, windows = self._grams, self._windows
        hits = [place for place in range(0, len(data) - _GRAM + 1, _STRIDE) if data[place : place + _GRAM] in grams]
        around = {data[begin : begin + WINDOW] for place in hits for begin in range(max(0, place - _STRIDE + 1), place + 1)}
        return {windows[each] for each in around & windows.keys()}

    def find_in_file(self, path: Path) -> set[str]:
        """Piece by piece, with an overlap."""
        found: set[str] = set()
        tail = b""
        with path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                found |= self.find(tail + piece)
                tail = piece[-WINDOW:]
        return found

    def find_in_folder(self, folder: Path, leave_out: Iterable[str] = ()) -> dict[str, set[str]]:
        """File → what is in it. `leave_out`: names of files that are meant to hold secrets."""
        names = set(leave_out)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in names]
        return {str(path.relative_to(folder)): found for path in files if (found := self.find_in_file(path))}

    def find_in_rows(self, rows: Iterable[tuple[str, bytes]]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for where, value in rows:
            if here := self.find(value):
                found.setdefault(where, set()).update(here)
        return found


def sqlite_rows(file: Path) -> Iterator[tuple[str, bytes]]:
    """(table.column, value) of everything; what is in the file but no longer in a row, `find_in_file` sees."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            yield from _cells(table, [column[0] for column in cursor.description], cursor)


def postgres_rows(url: str) -> Iterator[tuple[str, bytes]]:
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            cursor = connection.execute(psycopg.sql.SQL("SELECT * FROM {}").format(psycopg.sql.Identifier(table)))
            yield from _cells(table, [column.name for column in cursor.description or ()], cursor)


def _cells(table: str, columns: list[str], rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[str, bytes]]:
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            if value is not None:
                yield f"{table}.{column}", value if isinstance(value, bytes) else str(value).encode()


def _windows(form: bytes) -> set[bytes]:
    return {form[begin : begin + WINDOW] for begin in range(len(form) - WINDOW + 1)}
