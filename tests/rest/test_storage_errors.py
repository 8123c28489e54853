"""What the control plane says of a database that is busy, away or out of space."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import psycopg
import pytest
from django.db import InterfaceError, OperationalError
from django.db.utils import ProgrammingError
from django.test import RequestFactory

from llmcontrol.storage_errors import StorageErrors, exception_handler, told


def caused(error: type[Exception], cause: BaseException) -> Exception:
    exc = error(str(cause))
    exc.__cause__ = cause
    return exc


def of_sqlite(code: int, text: str = "told by SQLite") -> Exception:
    cause = sqlite3.OperationalError(text)
    cause.sqlite_errorcode = code
    return caused(OperationalError, cause)


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (of_sqlite(sqlite3.SQLITE_FULL), 507, "disk_full"),
        (OSError(errno.ENOSPC, "No space left on device"), 507, "disk_full"),
        (caused(OperationalError, psycopg.errors.DiskFull("x")), 507, "disk_full"),
        (of_sqlite(sqlite3.SQLITE_BUSY), 503, "database_busy"),
        (of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), 503, "database_busy"),
        (caused(OperationalError, psycopg.errors.LockNotAvailable("x")), 503, "database_busy"),
        (of_sqlite(sqlite3.SQLITE_ERROR, "no such table: access_team"), 503, "database_unavailable"),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN), 503, "database_unavailable"),
        (caused(OperationalError, psycopg.OperationalError("connection refused")), 503, "database_unavailable"),
        (InterfaceError("connection already closed"), 503, "database_unavailable"),
    ],
)
def test_it_is_told_with_a_status_of_its_own(exc: Exception, status: int, code: str) -> None:
    error = told(exc)
    assert error is not None
    assert (error.status_code, error.get_codes()) == (status, code)


@pytest.mark.parametrize(
    "exc", [of_sqlite(sqlite3.SQLITE_ERROR), ProgrammingError("no such column"), OSError(errno.EIO, "x"), KeyError("x")]
)
def test_defects_stay_defects(exc: Exception) -> None:
    assert told(exc) is None


def test_a_locked_file_is_told_in_rest_and_in_the_admin(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "file.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "file.sqlite3", timeout=0).execute("CREATE TABLE t (a)")
    holder.close()
    exc = caused(OperationalError, caught.value)

    answer = exception_handler(exc, {"request": RequestFactory().get("/api/v1/x"), "view": None, "args": (), "kwargs": {}})
    page = StorageErrors(lambda request: None).process_exception(RequestFactory().get("/admin/"), exc)  # type: ignore[arg-type]

    assert answer is not None
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert answer.data["errors"][0]["code"] == "database_busy"
    assert page is not None
    assert (page.status_code, page.content) == (503, answer.data["errors"][0]["detail"].encode())
