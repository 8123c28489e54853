"""What clients and vendors write is bounded before it becomes a record: SQLite stores text of any length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import models

from core.chat import Answer, ChatRequest
from core.config import CallerSpec
from core.errors import GatewayError
from core.plain import PLAIN
from gateway import settlement
from gateway.settlement import Asked, Attempt, Charge, End
from monitoring.journal import AttemptSettled, RequestEnded
from monitoring.models import RequestLog, UsageRecord

LONG = "a\0b" + "模" * 100_000
CALLER = CallerSpec("k1", "backend", "llm_1", "t1", "growth", frozenset())


class Wordy(GatewayError):
    code = LONG


def ended(model: str, error: GatewayError | None) -> RequestEnded:
    request = ChatRequest(PLAIN, model, False, False, None, 10, {})
    return settlement.ended(Asked("r", 0.0, CALLER, request, version=1), Charge(), End(0.0, None, 0, error))


def settled(finish_reason: str, error: GatewayError | None) -> AttemptSettled:
    upstream: Any = SimpleNamespace(key=SimpleNamespace(id="pk1"), reader=None)
    target: Any = None
    attempt = Attempt("r", 1, target, 0.0, 0.0, upstream, answer=Answer(b"", None, finish_reason, 0))
    return settlement.settled(attempt, Charge(), error, 0.0)


@pytest.mark.parametrize(
    ("model", "record", "name"),
    [
        (RequestLog, ended(LONG, Wordy(LONG)), "alias"),
        (RequestLog, ended(LONG, Wordy(LONG)), "error_code"),
        (RequestLog, ended(LONG, Wordy(LONG)), "error_message"),
        (UsageRecord, settled(LONG, Wordy(LONG)), "finish_reason"),
        (UsageRecord, settled(LONG, Wordy(LONG)), "error_code"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_from_outside_fits_its_column(model: type[models.Model], record: Any, name: str) -> None:
    limit = model._meta.get_field(name).max_length
    assert getattr(record, name) == LONG[:limit].replace("\0", "")


def test_text_that_fits_stays_as_it_is() -> None:
    answered, failed = ended("m" * 200, None), ended("größe", GatewayError("x" * 500))
    assert (answered.alias, answered.error_code, answered.error_message) == ("m" * 200, "", "")
    assert (failed.alias, failed.error_code, failed.error_message) == ("größe", "server_error", "x" * 500)
    assert settled("f" * 40, None).finish_reason == "f" * 40
    assert settled("", None).finish_reason == ""
