from __future__ import annotations

from datetime import UTC, datetime

import pytest

from providers.adapters.rate_headers import stated_calls_per_s

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC).timestamp()


def openai(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return dict(zip((f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")), (limit, remaining, reset), strict=True))


@pytest.mark.parametrize(
    ("headers", "rate"),
    [
        (openai("30000", "10", "59.98s"), 29_990 / 59.98),  # a bucket: what is used refills until the reset
        (openai("60", "0", "1m0s"), 1.0),
        (openai("14400", "4400", "16h40m0s"), 240.0),  # a day's limit: taken for a minute's, which bounds nothing too much
        (openai("100", "50", "30"), 5 / 3),  # a fixed window: what remains is for the time until the reset
        (openai("40", "20", "500ms"), 40.0),
        (
            {
                "anthropic-ratelimit-requests-limit": "60",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-11-21T08:00:30Z",
            },
            2.0,
        ),
        ({}, None),
        (openai("60", "60", "0s"), None),
        (openai("60", "70", "1s"), None),
        (openai("-1", "0", "1s"), None),
        (openai("many", "0", "1s"), None),
        (openai("60", "0", "soon"), None),
        (openai("60", "0", ""), None),
        (openai("60", "0", "nan"), None),
        ({"x-ratelimit-limit-requests": "60"}, None),
    ],
)
def test_the_stated_rate_is_never_less_than_what_is_allowed(headers: dict[str, str], rate: float | None) -> None:
    assert stated_calls_per_s(headers, NOW) == (None if rate is None else pytest.approx(rate))
