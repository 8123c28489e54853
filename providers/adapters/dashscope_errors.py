"""What went wrong at DashScope, as our own typed errors. Facts: https://help.aliyun.com/en/model-studio/error-code.

`{"code", "message", "request_id"}`: the code decides, with whatever status it comes, 200 included. The text is read only for
what one code is used for in several senses: `InvalidParameter` and `Throttling.AllocationQuota`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from core.errors import (
    ContentBlocked,
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

_OUR_ACCOUNT = re.compile(
    r"invalid_?api_?key|.*access_?denied.*|arrearage|allocationquota\.freetieronly|insufficient_quota|commoditynotpurchased"
    r"|p(?:re|ost)paidbilloverdue|notauthorised|unauthorized|forbidden",
    re.I,
)
_LIMITED = re.compile(r"throttling.*|limit_requests|limitrequests", re.I)
_BLOCKED = re.compile(r"data_?inspection_?failed|ipinfringementsuspect|faqruleblocked|customroleblocked", re.I)
_NO_MODEL = re.compile(r"model\.?_?not_?(?:exist|found)|modelunavailable", re.I)
_TIMED_OUT = re.compile(r"re(?:quest|sponse)_?timeout|internalerror\.timeout", re.I)
_FAULT = re.compile(r"internal_?(?:server_?)?error.*|service_?unavailable.*|systemerror|modelserv(?:ice|ing)(?:failed|error)", re.I)
_REFUSED = re.compile(r"invalid_?parameter.*|badrequest\..*|invalidurl|invalidfile.*|unsupportedoperation|invalid_request_error", re.I)
# The model's own servers fail in the words of the front, e.g. InternalError.Algo.InvalidParameter.
_INNER = re.compile(r"InternalError\.Algo\.(?=\w)", re.I)
_FREE_QUOTA = re.compile(r"\bfree\b", re.I)
_TOO_LONG = re.compile(r"range of input length|(?:input|message)s?\b.{0,60}\btokens?\b.{0,60}\bexceed|maximum context length", re.I | re.S)
_NO_MODEL_TEXT = re.compile(r"model not exist", re.I)


class _Error(msgspec.Struct):
    code: str
    message: str | None = None


def error_of_status(status: int, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[str], now_s: float) -> GatewayError:
    """The typed error of a non-2xx answer, as `openai_errors.error_of_status` has it; that one reads codes that are not known here."""
    try:
        found = _vendor_error(msgspec.json.decode(body))
    except UNREADABLE:
        found = None
    excerpt = f"HTTP {status}: " + redacted(body[:MAX_EXCERPT_BYTES].decode("utf-8", "replace"), secrets, MAX_EXCERPT_BYTES)
    error = found and _classified(found, status, retry_after_s(headers, now_s), excerpt, secrets)
    return error or openai_errors.error_of_status(status, headers, body, secrets=secrets, now_s=now_s)


def error_in_success(content: Any, *, secrets: Sequence[str]) -> GatewayError | None:
    """The typed error that came with status 200, whole or in a stream. None where `content` is no error."""
    found = _vendor_error(content)
    if found is None:
        return None
    detail = redacted(f"error inside HTTP 200: {found.code}: {found.message}", secrets, MAX_EXCERPT_BYTES)
    return _classified(found, 0, None, detail, secrets) or openai_errors.error_in_success(content, secrets=secrets)


def _vendor_error(content: Any) -> _Error | None:
    """Beside an answer `code` is absent or empty. Some errors come as OpenAI's, with `error` around them."""
    if isinstance(content, dict) and isinstance(content.get("error"), dict):
        content = content["error"]
    try:
        found = msgspec.convert(content, _Error)
    except msgspec.ValidationError:
        return None
    return found if found.code else None


def _classified(error: _Error, status: int, retry_s: float | None, detail: str, secrets: Sequence[str]) -> GatewayError | None:
    """None for a code that is not known here."""
    code, message = _INNER.sub("", error.code, count=1), error.message or ""
    free_quota_gone = code.lower() == "throttling.allocationquota" and _FREE_QUOTA.search(message)
    if _OUR_ACCOUNT.fullmatch(code) or free_quota_gone:
        return ProviderRejectedOurKey(REJECTED_OUR_KEY, detail=detail, vendor_status=status)
    if _LIMITED.fullmatch(code):
        return ProviderLimited(RATE_LIMITED, retry_after_s=retry_s, detail=detail, vendor_status=status)
    if _TIMED_OUT.fullmatch(code):
        return ProviderTimeout(TIMED_OUT, detail=detail, vendor_status=status)
    if _FAULT.fullmatch(code):
        text = f"The provider failed with {f'status {status}' if status else redacted(error.code, secrets, 100)}."
        return ProviderFault(text, retry_after_s=retry_s, detail=detail, vendor_status=status)
    return _of_the_request(code, message, status, detail, secrets)


def _of_the_request(code: str, message: str, status: int, detail: str, secrets: Sequence[str]) -> GatewayError | None:
    text = redacted(message, secrets) or "it gave no reason"
    refused = _REFUSED.fullmatch(code)
    if _NO_MODEL.fullmatch(code) or (refused and _NO_MODEL_TEXT.search(message)):
        return ProviderLacksModel(LACKS_MODEL, detail=detail, vendor_status=status)
    if _BLOCKED.fullmatch(code):
        return ContentBlocked(f"The provider blocked the content: {text}", detail=detail)
    if refused and _TOO_LONG.search(message):
        return ContextTooLong(f"The prompt is too long for the model: {text}", detail=detail)
    if refused:
        return ProviderRefused(f"The provider refused the request: {text}", detail=detail, vendor_status=status)
    return None


known(_Error)
