"""What went wrong at Google, as our own typed errors.

Google's `error.status` decides, a canonical code of its APIs, with the reasons in `error.details`; the text is read only for
what has no code. Facts: https://ai.google.dev/gemini-api/docs/troubleshooting, https://cloud.google.com/apis/design/errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from core.errors import (
    ContextTooLong,
    GatewayError,
    ProviderFault,
    ProviderLacksModel,
    ProviderLimited,
    ProviderRefused,
    ProviderRejectedOurKey,
    ProviderTimeout,
)
from core.shapes import known
from providers.adapters import openai_errors
from providers.adapters.openai_errors import (
    LACKS_MODEL,
    MAX_EXCERPT_BYTES,
    RATE_LIMITED,
    REJECTED_OUR_KEY,
    TIMED_OUT,
    redacted,
    retry_after_s,
)
from providers.adapters.reading import UNREADABLE

MAX_RETRY_DELAY_S = 86400.0
# FAILED_PRECONDITION: no free tier where we are, so that billing must be turned on.
_OUR_ACCOUNT = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION"})
_REFUSED = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", "ALREADY_EXISTS"})
_FAULTS = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "DATA_LOSS", "CANCELLED"})
_TOO_LONG = re.compile(r"token count.*exceed|exceeds? the maximum number of (?:input )?tokens", re.I | re.S)


class _Violation(msgspec.Struct, rename="camel"):
    quota_id: str = ""


class _Detail(msgspec.Struct, rename="camel"):
    reason: str = ""
    retry_delay: str = ""
    violations: list[_Violation] = []


class _Error(msgspec.Struct):
    status: str
    message: str = ""
    code: int = 0
    details: list[_Detail] = []


def error_of_status(status: int, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[str], now_s: float) -> GatewayError:
    """The typed error of a non-2xx answer, as `openai_errors.error_of_status` has it; that one reads what is not Google's shape."""
    try:
        found = _google_error(msgspec.json.decode(body))
    except UNREADABLE:
        found = None
    excerpt = f"HTTP {status}: " + redacted(body[:MAX_EXCERPT_BYTES].decode("utf-8", "replace"), secrets, MAX_EXCERPT_BYTES)
    error = found and _classified(found, status, retry_after_s(headers, now_s), excerpt, secrets)
    return error or openai_errors.error_of_status(status, headers, body, secrets=secrets, now_s=now_s)


def error_in_success(content: Any, *, secrets: Sequence[str]) -> GatewayError | None:
    """The typed error that came with status 200, whole or in a stream. None where `content` is no error."""
    found = _google_error(content)
    if found is not None:
        detail = redacted(f"error inside HTTP 200: {found.status}: {found.message}", secrets, MAX_EXCERPT_BYTES)
        if (error := _classified(found, found.code, None, detail, secrets)) is not None:
            return error
    inner = _unwrapped(content)
    return None if inner is None else openai_errors.error_in_success({"error": inner}, secrets=secrets)


def _unwrapped(content: Any) -> Any:
    """The value of `error` in an object, or in a list of one, which a stream without SSE would be."""
    if isinstance(content, list) and content:
        content = content[0]
    return (content.get("error") or None) if isinstance(content, dict) else None


def _google_error(content: Any) -> _Error | None:
    try:
        return msgspec.convert(_unwrapped(content), _Error)
    except msgspec.ValidationError:
        return None


def _classified(error: _Error, status: int, retry_s: float | None, detail: str, secrets: Sequence[str]) -> GatewayError | None:
    """None for a status that is not known here."""
    if error.status in _OUR_ACCOUNT or any(found.reason.startswith("API_KEY_") for found in error.details):
        return ProviderRejectedOurKey(REJECTED_OUR_KEY, detail=detail, vendor_status=status)
    if error.status == "NOT_FOUND":
        return ProviderLacksModel(LACKS_MODEL, detail=detail, vendor_status=status)
    if error.status == "RESOURCE_EXHAUSTED":
        return _limited(error, status, retry_s, detail)
    if error.status == "DEADLINE_EXCEEDED":
        return ProviderTimeout(TIMED_OUT, detail=detail, vendor_status=status)
    if error.status in _FAULTS:
        text = f"The provider failed with status {status or error.status}."
        return ProviderFault(text, retry_after_s=_delay_s(error) or retry_s, detail=detail, vendor_status=status)
    if error.status not in _REFUSED:
        return None
    message = redacted(error.message, secrets) or "it gave no reason"
    if _TOO_LONG.search(error.message):
        return ContextTooLong(f"The prompt is too long for the model: {message}", detail=detail)
    return ProviderRefused(f"The provider refused the request: {message}", detail=detail, vendor_status=status)


def _limited(error: _Error, status: int, retry_s: float | None, detail: str) -> GatewayError:
    quotas = [violation.quota_id for found in error.details for violation in found.violations]
    if any("PerDay" in quota for quota in quotas):
        text = "The daily quota of our account at the provider is used up. An administrator must look."
        return ProviderRejectedOurKey(text, detail=detail, vendor_status=status)
    return ProviderLimited(RATE_LIMITED, retry_after_s=_delay_s(error) or retry_s, detail=detail, vendor_status=status)


def _delay_s(error: _Error) -> float | None:
    """`retryDelay`, a text such as 34.4s, in seconds; None where there is none that makes sense."""
    for found in error.details:
        try:
            delay_s = float(found.retry_delay.removesuffix("s"))
        except ValueError:
            continue
        if 0 < delay_s <= MAX_RETRY_DELAY_S:
            return delay_s
    return None


known(_Error)
