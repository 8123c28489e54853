"""A database that is busy, away or out of space is no defect of ours: the control plane says so, plainly, instead of a 500."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin
from drf_standardized_errors.handler import ExceptionHandler
from drf_standardized_errors.handler import exception_handler as standardized
from rest_framework.exceptions import APIException, ParseError
from rest_framework.response import Response

from monitoring import sentences
from monitoring.audit import AuditUnavailable

_RETRY_AFTER_S = 2
# https://www.postgresql.org/docs/current/errcodes-appendix.html: disk_full; lock_not_available, query_canceled.
_NO_SPACE, _TOO_LONG = "53100", frozenset({"55P03", "57014"})


class StorageError(APIException):
    wait: int | None = _RETRY_AFTER_S
    status_code = 503
    default_code = "database_unavailable"
    default_detail = "The database cannot be reached; nothing was changed. Try again shortly."


class DatabaseBusy(StorageError):
    default_code = "database_busy"
    default_detail = "Somebody else holds the database for longer than we wait; nothing was changed. Try again shortly."


class DatabaseEmpty(StorageError):
    default_detail = "The database lacks our tables; put its file back where it was, or run `manage.py migrate`."


class AuditNotWritable(StorageError):
    default_code = "audit_unavailable"
    default_detail = (
        "The audit trail cannot be written, and nothing is changed without it. The server's log says why; "
        "`manage.py migrate` puts back a table that is missing."
    )


class DiskFull(StorageError):
    wait = None
    status_code = 507
    default_code = "disk_full"
    default_detail = "The disk of the database is full; nothing was changed. Free some space on it, and try again."


def told(exc: BaseException) -> StorageError | None:
    """What to say of `exc`; None where it is not the storage's fault."""
    if isinstance(exc, OSError):
        return DiskFull() if exc.errno == errno.ENOSPC else None
    if not isinstance(exc, OperationalError | InterfaceError):
        return None
    cause = exc.__cause__
    # SQLite's extended codes carry the plain one in their lowest byte.
    code = (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF
    state = getattr(cause, "sqlstate", None)
    if code == sqlite3.SQLITE_FULL or state == _NO_SPACE:
        return DiskFull()
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or state in _TOO_LONG:
        return DatabaseBusy()
    if isinstance(exc, AuditUnavailable):
        return AuditNotWritable()
    if code == sqlite3.SQLITE_ERROR:  # wrong SQL, unless it is not our database: a file that is not there is made, empty
        return DatabaseEmpty() if str(cause).startswith("no such table") else None
    return StorageError()


def exception_handler(exc: Exception, context: Any) -> Response | None:
    """Of every REST view."""
    if isinstance(exc, SuspiciousOperation):  # Django's word for what a client must not send; outside of REST it is a 400 too
        exc = ParseError(str(exc))
    error = told(exc)
    return standardized(exc, context) if error is None else _Told(error, context).run()


class _Told(ExceptionHandler):
    """Django's log has a line of every 503 and 507; where in our code the database was missed is no news."""

    def report_exception(self, exc: APIException, response: Response) -> None:
        return


class StorageErrors(MiddlewareMixin):
    """The same for the admin's pages."""

    def process_exception(self, request: HttpRequest, exc: Exception) -> HttpResponseBase | None:
        """The page is a sentence: a template might need the database."""
        error = told(exc)
        return (
            None if error is None else HttpResponse(sentences.told(str(error.detail)), status=error.status_code, content_type="text/plain")
        )
