"""Records for the journal's tests."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.clock import FrozenClock
from monitoring.journal import AttemptOpened, AttemptSettled, Journal, Record, RequestEnded

BEGUN = 1_800_000_000.0


def opened(name: str, attempt: int = 1, **changes: object) -> AttemptOpened:
    record = AttemptOpened(
        request_id=name,
        attempt=attempt,
        started_at=BEGUN,
        team_id="t1",
        team_name="growth",
        key_id="k1",
        key_name="backend",
        provider_id="p1",
        provider_name="openai-main",
        alias="gpt-4o",
        model_id="gpt-4o-2024-08-06",
        streamed=True,
        estimated_input_tokens=120,
        config_version=17,
    )
    return msgspec.structs.replace(record, **changes)


def settled(name: str, attempt: int = 1, **changes: object) -> AttemptSettled:
    record = AttemptSettled(
        request_id=name,
        attempt=attempt,
        status="ok",
        provider_key_id="pk1",
        error_code="",
        vendor_status=200,
        finish_reason="stop",
        input_tokens=100,
        cached_input_tokens=20,
        cache_write_tokens=3,
        cache_write_1h_tokens=2,
        input_audio_tokens=5,
        input_image_tokens=6,
        output_tokens=50,
        reasoning_tokens=7,
        output_audio_tokens=8,
        output_image_tokens=9,
        usage_source="vendor",
        cost_micros=1234,
        currency="USD",
        price_id="price1",
        duration_ms=812,
        first_token_ms=210,
        cost_reporting_micros=8692,
        charged_micros=9127,
        reporting_currency="USD",
        exchange_rate="7.044",
    )
    return msgspec.structs.replace(record, **changes)


def ended(name: str, **changes: object) -> RequestEnded:
    record = RequestEnded(
        request_id=name,
        started_at=BEGUN,
        team_id="t1",
        team_name="growth",
        key_id="k1",
        key_name="backend",
        dialect="openai",
        alias="gpt-4o",
        provider_name="openai-main",
        model_id="gpt-4o-2024-08-06",
        streamed=True,
        status_code=200,
        error_code="",
        error_message="",
        attempts=1,
        total_tokens=173,
        cost_micros=1234,
        currency="USD",
        duration_ms=820,
        first_token_ms=212,
        config_version=17,
        dropped="seed",
    )
    return msgspec.structs.replace(record, **changes)


def whole(name: str) -> tuple[Record, Record, Record]:
    """All records of one request that went well."""
    return opened(name), settled(name), ended(name)


def make_journal(directory: Path, segment_bytes: int = 2**20) -> Journal:
    return Journal(directory, segment_bytes, FrozenClock())


def die(journal: Journal) -> None:
    """What the kernel does when a process is killed: it closes the files, and so drops the lock."""
    journal.close()
