"""The rate that a vendor says it allows, from the headers of its answers.

Names and forms as recorded from the vendors (2026-11): OpenAI, Azure and Groq send `x-ratelimit-{limit,remaining,reset}-requests`
with a reset like `12ms`, `6m0s`, or plain seconds at Azure; Anthropic sends `anthropic-ratelimit-requests-{limit,remaining,reset}`
with a moment in RFC 3339.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

_OPENAI = tuple(f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset"))
_ANTHROPIC = tuple(f"anthropic-ratelimit-requests-{what}" for what in ("limit", "remaining", "reset"))
_MINUTE_S = 60.0
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d)")
_UNITS_S = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def stated_calls_per_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Calls a second that the vendor can be relied on not to exceed; None = it says nothing that can be used. Never raises.

    Nobody says how long the limit's window is. A bucket refills what is used until the reset, a fixed window has what
    remains until then, and most limits are per minute: the largest of the three is never less than what is allowed.
    """
    limit_name, remaining_name, reset_name = _OPENAI if _OPENAI[0] in headers else _ANTHROPIC
    try:
        limit, remaining = int(headers[limit_name]), int(headers[remaining_name])
        reset_s = _seconds(headers[reset_name], wall_s)
    except (KeyError, ValueError):
        return None
    if limit <= 0 or not 0 <= remaining <= limit or not reset_s > 0:
        return None
    return max(limit / _MINUTE_S, max(remaining, limit - remaining) / reset_s)


def _seconds(text: str, wall_s: float) -> float:
    """Raises ValueError."""
    if "T" in text:
        return datetime.fromisoformat(text).timestamp() - wall_s
    if text and not _PART.sub("", text):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    return float(text)
