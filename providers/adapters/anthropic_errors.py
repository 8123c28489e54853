"""What went wrong, in Anthropic's words: `{"type": "error", "error": {"type", "message", "details"?}, "request_id"}`.

Here is only what its labels say beyond the status; the rest, and bodies of a proxy in between, read as everyone else's do.
Source: https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from core.errors import ContextTooLong, GatewayError, ProviderLacksModel, ProviderRejectedOurKey
from providers.adapters.openai_errors import LACKS_MODEL, REJECTED_OUR_KEY, error_of_status, redacted
from providers.adapters.reading import UNREADABLE

_SPENT = "enforced_spend_limit_reached"
_ACCOUNT = frozenset({"authentication_error", "permission_error", "billing_error"})
# The type is invalid_request_error, as for everything else that is wrong with a request: only the text tells.
_CONTEXT = re.compile(r"prompt is too long|exceeds? (?:the )?context|input is too long", re.I)
_MODEL = re.compile(r"\bmodel\b", re.I)
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Details(msgspec.Struct):
    error_code: str | None = None


class _Problem(msgspec.Struct):
    type: str = ""
    message: str = ""
    details: _Details | None = None


class _Body(msgspec.Struct):
    error: _Problem


_decode = msgspec.json.Decoder(_Body).decode


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[str], now_s: float) -> GatewayError:
    """The typed error of a non-2xx answer. `headers` in lower case; `now_s` is wall time, for Retry-After as a date."""
    plain = error_of_status(status, headers, body, secrets=secrets, now_s=now_s)
    try:
        problem = _decode(body).error
    except UNREADABLE:
        return plain
    return _by_label(status, headers, problem, redacted(problem.message, secrets), plain.detail) or plain


def error_inside(content: Any, *, secrets: Sequence[str]) -> GatewayError:
    """The typed error of an `error` object that came with status 200, whole or in a stream: only its labels classify it."""
    label = content.get("type") if isinstance(content, dict) else None
    status = _STATUS.get(label, 500) if isinstance(label, str) else 500
    error = error_of_answer(status, {}, msgspec.json.encode({"error": content}), secrets=secrets, now_s=0.0)
    error.detail = f"inside HTTP 200: {error.detail}"
    return error


def _by_label(status: int, headers: Mapping[str, str], problem: _Problem, message: str, detail: str | None) -> GatewayError | None:
    label = problem.type
    code = problem.details.error_code if problem.details else None
    if code == _SPENT or (label == "rate_limit_error" and headers.get("x-should-retry") == "false"):
        text = "Our account at the provider has reached its spending limit. An administrator must look."
        return ProviderRejectedOurKey(text, detail=detail, vendor_status=status)
    if label in _ACCOUNT:
        return ProviderRejectedOurKey(REJECTED_OUR_KEY, detail=detail, vendor_status=status)
    if label == "not_found_error" and _MODEL.search(problem.message):
        return ProviderLacksModel(LACKS_MODEL, detail=detail, vendor_status=status)
    if label == "request_too_large" or (label == "invalid_request_error" and _CONTEXT.search(problem.message)):
        return ContextTooLong(f"The prompt is too long for the model: {message}", detail=detail)
    return None
