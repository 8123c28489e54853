"""A provider as the contract spells it."""

from __future__ import annotations

from typing import Any

from tests.rest.conftest import SECRET

URL = "/api/v1/llm/providers"
BODY: dict[str, Any] = {
    "name": "openai-main",
    "provider_type": "openai",
    "config": {"api_key": SECRET, "base_url": "https://api.openai.com/v1", "organization": "org-1"},
    "is_active": True,
    "visibility": "everyone",
    "rate_limit": {"type": "token_bucket", "capacity": 20.0, "refill_rate": 3.0, "tokens_per_minute": 90_000},
    "breaker": {
        "fail_max": 6,
        "reset_timeout_s": 61.0,
        "max_reset_timeout_s": 90.0,
        "failure_rate": 0.5,
        "window_s": 30.0,
        "min_calls": 10,
        "keep_last": False,
    },
    "timeouts": {"connect_s": 2.0, "first_byte_s": 31.0, "idle_s": 62.0, "total_s": 601.0},
    "max_concurrency": 50,
    "price_adjustment_bp": -1500,
    "probe_budget_micros": 20_000,
    "ca_certificates": "",
}
