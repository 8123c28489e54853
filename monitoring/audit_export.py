"""The trail as a file: JSON lines, which `deploy/verify_audit.py` reads where no filter leaves rows out, or CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse

from monitoring import audit, audit_chain
from monitoring.api.csv import plain_cell
from monitoring.audit_chain import Row
from monitoring.models import AuditEvent

MAX_ROWS = 10_000
MEDIA_TYPES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


def answer(rows: QuerySet[AuditEvent], kind: str, asked: str) -> HttpResponse:
    """A file of the first MAX_ROWS of `rows`; that it was made is recorded first. `asked` is what was filtered by, for the record.

    Where there are more and the oldest come first, `x-next-after` has the number of the last row. `manage.py export_audit` writes all.
    """
    audit.record(AuditEvent.Action.EXPORTED, changes={"what": (None, "the audit trail"), "query": (None, asked)})
    found = [as_dict(row) for row in rows[: MAX_ROWS + 1]]
    text = as_csv(found[:MAX_ROWS]) if kind == "csv" else as_jsonl(found[:MAX_ROWS])
    response = HttpResponse(text, content_type=f"{MEDIA_TYPES[kind]}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="audit.{kind}"'
    response["Cache-Control"] = "no-store"
    if len(found) > MAX_ROWS and found[0]["sequence"] < found[1]["sequence"]:
        response["x-next-after"] = str(found[MAX_ROWS - 1]["sequence"])
    return response


def as_dict(row: AuditEvent) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in Row._fields}
    return {**values, "at": audit_chain.written_moment(row.at)}


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, Row._fields)
    writer.writeheader()
    writer.writerows({name: plain_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()
