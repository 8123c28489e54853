"""Which attempts and requests of a journal have ended, as rows of the ledger, and what is said of those that never will."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec

from monitoring.interruption import Interruption
from monitoring.journal import AttemptOpened, AttemptSettled, Position, RequestEnded
from monitoring.journal_reading import Writes
from monitoring.ledger import ENTRIES, REQUESTS, USAGE, Row, Table, entry_rows, request_row, usage_row
from monitoring.models import UsageRecord


class Unfinished(msgspec.Struct, frozen=True, gc=False):
    """Where something began, a `Position`, when (wall seconds), and its (latest) opening record."""

    position: tuple[int, int]
    began_at: float
    opened: AttemptOpened


class Books:
    """Pairs each attempt's opening with its settlement, and knows which attempts and requests have not ended yet."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], Unfinished] = {}
        self._requests: dict[str, Unfinished] = {}

    def take(self, sequence: int, writes: Writes) -> tuple[list[tuple[Table, Row]], list[AttemptSettled]]:
        """The rows that these writes of that segment complete, and the settlements whose openings were never read."""
        rows: list[tuple[Table, Row]] = []
        strays: list[AttemptSettled] = []
        for offset, records in writes:
            for record in records:
                if isinstance(record, AttemptOpened):
                    self._begin((sequence, offset), record)
                elif isinstance(record, RequestEnded):
                    self._requests.pop(record.request_id, None)
                    rows.append((REQUESTS, request_row(record)))
                elif (opening := self._attempts.pop((record.request_id, record.attempt), None)) is not None:
                    rows += _attempt_rows(opening.opened, record)
                else:
                    strays.append(record)
        return rows, strays

    def _begin(self, position: tuple[int, int], opened: AttemptOpened) -> None:
        attempt = self._attempts[opened.request_id, opened.attempt] = Unfinished(position, opened.started_at, opened)
        begun = self._requests.get(opened.request_id)
        self._requests[opened.request_id] = Unfinished(begun.position, begun.began_at, opened) if begun else attempt

    def open_requests(self, most: int) -> list[Unfinished]:
        """Those that have begun and not ended, the longest ones first."""
        return list(islice(self._requests.values(), most))

    def oldest(self) -> Position | None:
        """Where the oldest unfinished attempt or request begins; reading again from there forgets nothing."""
        begun = [next(iter(kept.values())).position for kept in (self._attempts, self._requests) if kept]
        return Position(*min(begun)) if begun else None

    def has_unfinished(self, begun_before: float) -> bool:
        """Whether `give_up` would find anything."""
        kept = (*self._attempts.values(), *self._requests.values())
        return any(unfinished.opened.started_at < begun_before for unfinished in kept)

    def give_up(
        self, why: Interruption, begun_before: float, progress: Mapping[tuple[str, int], AttemptSettled]
    ) -> list[tuple[Table, Row]]:
        """Rows for what began before that moment (wall seconds) and will not end any more, with what is known of it by `progress`."""
        rows: list[tuple[Table, Row]] = []
        settled: dict[tuple[str, int], AttemptSettled] = {}
        for opened in _take_out(self._attempts, begun_before):
            attempt = opened.request_id, opened.attempt
            settled[attempt] = _settlement(opened, why, progress.get(attempt))
            rows += _attempt_rows(opened, settled[attempt])
        for opened in _take_out(self._requests, begun_before):
            rows.append((REQUESTS, request_row(_ending(opened, settled.get((opened.request_id, opened.attempt)), why))))
        return rows


def _attempt_rows(opened: AttemptOpened, settled: AttemptSettled) -> list[tuple[Table, Row]]:
    rows = [(USAGE, usage_row(opened, settled))]
    if opened.holds:
        rows += [(ENTRIES, row) for row in entry_rows(opened, settled)]
    return rows


def _take_out(kept: dict[Any, Unfinished], begun_before: float) -> list[AttemptOpened]:
    old = [key for key, unfinished in kept.items() if unfinished.opened.started_at < begun_before]
    return [kept.pop(key).opened for key in old]


def _settlement(opened: AttemptOpened, why: Interruption, so_far: AttemptSettled | None) -> AttemptSettled:
    return msgspec.structs.replace(so_far or _nothing_known(opened), status=UsageRecord.Status.INTERRUPTED.value, error_code=why.code)


def _nothing_known(opened: AttemptOpened) -> AttemptSettled:
    return AttemptSettled(
        request_id=opened.request_id,
        attempt=opened.attempt,
        status="",
        provider_key_id="",
        error_code="",
        vendor_status=0,
        finish_reason="",
        usage_source=UsageRecord.Source.ESTIMATED.value,
        input_tokens=opened.estimated_input_tokens,
        cached_input_tokens=0,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
        input_audio_tokens=0,
        input_image_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        output_audio_tokens=0,
        output_image_tokens=0,
        cost_micros=None,
        currency="",
        price_id="",
        duration_ms=0,
        first_token_ms=None,
    )


def _ending(opened: AttemptOpened, interrupted: AttemptSettled | None, why: Interruption) -> RequestEnded:
    """Of the request whose last attempt was `opened`, and `interrupted` unless it had failed on its own: then it, as all before it,
    cost nothing."""
    return RequestEnded(
        request_id=opened.request_id,
        started_at=opened.started_at,
        team_id=opened.team_id,
        team_name=opened.team_name,
        key_id=opened.key_id,
        key_name=opened.key_name,
        dialect="",
        alias=opened.alias,
        provider_name=opened.provider_name,
        model_id=opened.model_id,
        streamed=opened.streamed,
        status_code=500,
        error_code=why.code,
        error_message=why.message,
        attempts=opened.attempt,
        total_tokens=_all_tokens(interrupted) if interrupted else 0,
        cost_micros=interrupted.cost_micros if interrupted else 0,
        currency=interrupted.currency if interrupted else "",
        duration_ms=interrupted.duration_ms if interrupted else 0,
        first_token_ms=interrupted.first_token_ms if interrupted else None,
        config_version=opened.config_version,
        dropped="",
        end_user=opened.end_user,
        task_type=opened.task_type,
        tag=opened.tag,
    )


def _all_tokens(settled: AttemptSettled) -> int:
    return int(sum(getattr(settled, name) for name in AttemptSettled.__struct_fields__ if name.endswith("_tokens")))
