"""Records are built by position; here each field is asked for by its name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import asdict

from core.chat import Answer, ChatRequest, Usage
from core.config import CallerSpec, ModelSpec, Snapshot
from core.errors import GatewayError, ProviderError
from core.plain import PLAIN
from gateway import settlement
from gateway.settlement import Asked, Attempt, Charge, End
from monitoring.journal import AttemptSettled

CALLER = CallerSpec("key-id", "key name", "llm_1", "team-id", "team name", frozenset())
REQUEST = ChatRequest(PLAIN, "asked-for", True, False, None, 11, {})
ASKED = Asked("r", 1.25, CALLER, REQUEST, version=17, labels=("ann", "translation", "nightly"))
TARGET: Any = SimpleNamespace(
    model=SimpleNamespace(alias="alias", model_id="vendor-model"), provider=SimpleNamespace(id="provider-id", name="provider name")
)
UPSTREAM: Any = SimpleNamespace(key=SimpleNamespace(id="provider-key-id"), reader=None)
USAGE = Usage(
    input=101,
    cached_input=102,
    cache_write=103,
    cache_write_1h=104,
    input_audio=105,
    input_image=106,
    output=107,
    reasoning=108,
    output_audio=109,
    output_image=110,
)
CHARGE = Charge(USAGE, 4321, "EUR", "price-id", 1055, 4753, 4991, "USD", "1.1")
LABELS = {"end_user": "ann", "task_type": "translation", "tag": "nightly"}
CALLED_BY = {"team_id": "team-id", "team_name": "team name", "key_id": "key-id", "key_name": "key name"}


def attempt() -> Attempt:
    return Attempt("r", 2, TARGET, 1.5, 10.0, UPSTREAM, answer=Answer(b"", None, "stop", 0), first_token_s=10.25)


def ended(error: GatewayError | None) -> dict[str, Any]:
    end = End(0.75, TARGET, 3, error, first_token_s=0.5, dropped=("seed", "top_k"))
    return asdict(settlement.ended(ASKED, CHARGE, end))


def test_an_opening_says_each_thing_under_its_name() -> None:
    assert asdict(settlement.opened(attempt(), ASKED)) == CALLED_BY | {
        "estimated_input_tokens": REQUEST.estimated_input_tokens,
        "started_at": 1.5,
        "request_id": "r",
        "attempt": 2,
        "provider_id": "provider-id",
        "provider_name": "provider name",
        "alias": "alias",
        "model_id": "vendor-model",
        "streamed": True,
        "config_version": 17,
        "holds": (),
        **LABELS,
    }


def test_a_settlement_says_each_thing_under_its_name() -> None:
    answered = {
        "request_id": "r",
        "attempt": 2,
        "status": "ok",
        "provider_key_id": "provider-key-id",
        "error_code": "",
        "vendor_status": 200,
        "finish_reason": "stop",
        "usage_source": "vendor",
        "input_tokens": 101,
        "cached_input_tokens": 102,
        "cache_write_tokens": 103,
        "cache_write_1h_tokens": 104,
        "input_audio_tokens": 105,
        "input_image_tokens": 106,
        "output_tokens": 107,
        "reasoning_tokens": 108,
        "output_audio_tokens": 109,
        "output_image_tokens": 110,
        "cost_micros": 4321,
        "currency": "EUR",
        "price_id": "price-id",
        "duration_ms": 750,
        "first_token_ms": 250,
        "cost_reporting_micros": 4753,
        "charged_micros": 4991,
        "reporting_currency": "USD",
        "exchange_rate": "1.1",
        "charges": (),
        "usage_refused": "",
    }
    assert asdict(settlement.settled(attempt(), CHARGE, None, 10.75)) == answered

    error = ProviderError("It is overloaded.", vendor_status=529)
    failed = answered | {"status": "error", "error_code": error.code, "vendor_status": 529}
    assert asdict(settlement.settled(attempt(), CHARGE, error, 10.75)) == failed


def test_an_end_says_each_thing_under_its_name() -> None:
    answered = CALLED_BY | {
        "started_at": 1.25,
        "request_id": "r",
        "dialect": PLAIN.NAME,
        "alias": "asked-for",
        "provider_name": "provider name",
        "model_id": "vendor-model",
        "streamed": True,
        "status_code": 200,
        "error_code": "",
        "error_message": "",
        "attempts": 3,
        "total_tokens": 1055,
        "cost_micros": 4321,
        "currency": "EUR",
        "duration_ms": 750,
        "first_token_ms": 500,
        "config_version": 17,
        "dropped": "seed, top_k",
        **LABELS,
        "prompt_name": "",
        "prompt_version": 0,
        "cache": "",
        "saved_micros": None,
        "decision": "",
        "trace_id": "",
        "replayed": False,
    }
    assert ended(None) == answered

    error = GatewayError("It broke.")
    assert ended(error) == answered | {"status_code": error.http_status, "error_code": error.code, "error_message": "It broke."}


def usage_of(usage: Usage, window: int | None, *, body_bytes: int = 40) -> Usage | None:
    target: Any = SimpleNamespace(model=ModelSpec("m", "alias", "vendor-model", "p", context_window=window))
    found = Attempt("r", 1, target, 1.5, 10.0, UPSTREAM, answer=Answer(b"", usage, "stop", 8))
    return settlement.charge(
        found, ChatRequest(PLAIN, "asked-for", False, False, None, body_bytes, {}), None, CALLER, Snapshot(1, 0.0)
    ).usage


@pytest.mark.parametrize("usage", [Usage(input=4001), Usage(cached_input=4001), Usage(output=4001), Usage(reasoning=4001)])
def test_what_no_window_and_no_bytes_have_room_for_is_counted_by_us(usage: Usage) -> None:
    refused = f"more than the window and the bytes have room for: {usage.prompt_tokens} in, {usage.completion_tokens} out"
    assert usage_of(usage, 1000) == Usage(input=11, output=2, estimated=True, refused=refused)
    assert usage_of(usage, None) == usage
    assert usage_of(usage, 1001) == usage


def test_a_batch_of_many_short_prompts_may_be_longer_than_the_window() -> None:
    assert usage_of(Usage(input=4001), 1000, body_bytes=4001) == Usage(input=4001)


def test_a_settlement_of_an_earlier_version_is_still_read() -> None:
    """It ends with `first_token_ms`: what the team owes for it is not known."""
    whole = msgspec.json.decode(msgspec.json.encode(settlement.settled(attempt(), CHARGE, None, 10.75)))
    since = AttemptSettled.__struct_fields__.index("cost_reporting_micros") + 1  # and the tag
    earlier = msgspec.json.decode(msgspec.json.encode(whole[:since]), type=AttemptSettled)
    assert (earlier.cost_micros, earlier.first_token_ms) == (4321, 250)
    assert (earlier.cost_reporting_micros, earlier.charged_micros, earlier.reporting_currency, earlier.exchange_rate) == (
        None,
        None,
        "",
        "",
    )
