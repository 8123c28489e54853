"""What went wrong, in the words of every vendor that imitates OpenAI's errors, as our own typed errors.

The status decides; `code` and `type` refine it; the text is read only where they say nothing of their own, as in
`invalid_request_error`. Vendors' bodies differ: `{"error": {…}}`, `{"error": "text"}`, flat `{"code", "message"}` (DashScope
and older vLLM), `{"detail": …}` (Mistral), numbers as codes (vLLM, llama.cpp, Azure), plain text (DeepSeek), HTML from a
proxy in between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from core.errors import (
    ContentBlocked,
    ContextTooLong,
    GatewayError,
    ProviderFault,
    ProviderLacksModel,
    ProviderLimited,
    ProviderNonsense,
    ProviderRefused,
    ProviderRejectedOurKey,
    ProviderTimeout,
)
from providers.adapters.reading import UNREADABLE

MAX_MESSAGE_CHARS = 500
MAX_EXCERPT_BYTES = 512
_MAX_PARAM_CHARS = 100
_MASK = "****"

# What every wire's errors are told in.
REJECTED_OUR_KEY = (
    "The provider rejected the credential configured for it, or its account there may not do this. An administrator must look."
)
LACKS_MODEL = "The provider does not know the model configured for it. An administrator must correct the model id."
RATE_LIMITED = "The provider's rate limit is reached."
TIMED_OUT = "The provider did not finish in its own time limit."

_SECRETS = re.compile(
    r"(?:\b(?:sk|pk|rk|ak|gsk|xai|hf|pplx|nvapi|r8|bce-v3|ghp|glpat|org|proj)[-_/][A-Za-z0-9_\-./*]{6,}"
    r"|\bAIza[A-Za-z0-9_\-]{10,}|\bya29\.[A-Za-z0-9_\-.]{6,}|\bAKIA[A-Z0-9]{8,}|\beyJ[A-Za-z0-9_\-]{8,}[A-Za-z0-9_\-.]*"
    r"|(?i:\bbearer\s+)\S{6,}|(?i:\bapi[-_ ]?key\b[\"']?\s*[:=]\s*[\"']?)[^\s\"',}]{6,})"
)
_CONTEXT = re.compile(
    r"context.?(?:length|window|size)|maximum context|exceeded model token limit|exceed_context|tokens_too_long|too many tokens"
    r"|range of input length|exceed max message tokens",
    re.I,
)
_BLOCKED = re.compile(r"content.?(?:filter|policy)|data_?inspection|sensitivecontent|moderation_blocked|responsible ai", re.I)
_ACCOUNT = re.compile(
    r"insufficient.?(?:quota|balance|credit)|exceeded_current_quota|quotaexceeded|billing|arrearage|accountoverdue|payment"
    r"|credit balance|invalid_?api_?key|api_key_invalid|incorrect api key|authentication_error|invalid_authentication|invalid_iam_token",
    re.I,
)
_ACCOUNT_TEXT = re.compile(r"incorrect api key|invalid api key|credit balance|insufficient balance", re.I)
_NO_MODEL = re.compile(
    r"model_not_found|resource_not_found_error|invalid_model|modelnotopen|deploymentnotfound|model.?not.?exist|invalidendpointormodel"
    r"|model\W.*(?:not found|not exist|not supported|not available)|unknown model",
    re.I | re.S,
)
_LIMITED = re.compile(r"rate.?limit|too.?many.?requests|throttl|resource_exhausted|limit_requests|rpm_|tpm_", re.I)
# Labels that say no more than the status does: only with these does the text count.
_GENERIC = re.compile(
    r"(?:\d+|null|none|error|api.?error|(?:invalid|bad).?request(?:.?error)?|invalid.?parameter(?:.?error)?|(?:invalid|illegal).?argument"
    r"|not.?found(?:.?error)?|unprocessable.?entity|client specified .*)?",
    re.I,
)
_TOO_LARGE = re.compile(r"request too large", re.I)
_BAD_REQUEST = re.compile(r"invalid_request|bad_?request|invalid_parameter|invalidparameter|unprocessable|tool_use_failed", re.I)


class VendorError(msgspec.Struct):
    """What could be read from an error body; empty strings where the vendor said nothing."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str | None = None
    status: int = 0

    @property
    def labels(self) -> str:
        """What the status is refined by."""
        return f"{self.code} {self.type}"

    @property
    def words(self) -> str:
        """The labels, and the text where they are too general to tell anything."""
        told = _GENERIC.fullmatch(self.code) and _GENERIC.fullmatch(self.type)
        return f"{self.labels} {self.message}" if told else self.labels


def redacted(text: str, secrets: Sequence[str] = (), limit: int = MAX_MESSAGE_CHARS) -> str:
    """`text` without our own keys and without anything that looks like somebody's, in one line of at most `limit` characters."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, _MASK)
    text = " ".join(_SECRETS.sub(_MASK, text[: 4 * limit]).split())
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def parse_error(body: bytes) -> VendorError:
    """Reads what it can; never raises."""
    try:
        content = msgspec.json.decode(body)
    except UNREADABLE:
        return VendorError(message=_plain_text(body))
    return error_from(content)


def _plain_text(body: bytes) -> str:
    """A body that is a sentence, as DeepSeek's 422; "" for a page, and for what was meant to be JSON."""
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return ""
    return "" if text[:1] in ("<", "{", "[") or "<html" in text[:MAX_EXCERPT_BYTES].lower() else text


def error_from(content: Any) -> VendorError:
    """`content` is a decoded body, or the value of its `error` key."""
    if isinstance(content, str):
        return VendorError(message=content)
    if not isinstance(content, dict):
        return VendorError()
    inner = content.get("error")
    if isinstance(inner, (dict, str)) and inner:
        found = error_from(inner)
        found.code = found.code or _text(content.get("code"))
        return found
    code = _text(content.get("code"))
    param = content.get("param")
    return VendorError(
        message=_text(content.get("message")) or _detail(content.get("message")) or _detail(content.get("detail")),
        code=code,
        type=_text(content.get("type")),
        param=param if isinstance(param, str) and param else None,
        status=_status(content.get("status_code")) or _status(code),
    )


def _detail(value: Any) -> str:
    """The text of FastAPI's `detail`, which is Mistral's too: a sentence, or a list of {"loc": […], "msg": …}."""
    if isinstance(value, dict):
        return _detail(value.get("detail"))
    if not isinstance(value, list):
        return _text(value)
    problems = [entry for entry in value[:3] if isinstance(entry, dict) and _text(entry.get("msg"))]
    places = [".".join(_text(step) for step in entry["loc"]) if isinstance(entry.get("loc"), list) else "" for entry in problems]
    return "; ".join(f"{place}: {entry['msg']}" if place else entry["msg"] for place, entry in zip(places, problems, strict=True))


def _text(value: Any) -> str:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _status(value: Any) -> int:
    text = _text(value)
    return int(text) if text.isdecimal() and len(text) == 3 and int(text) >= 400 else 0


def error_of_status(status: int, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[str], now_s: float) -> GatewayError:
    """The typed error of a non-2xx answer. `headers` in lower case; `now_s` is wall time, for Retry-After as a date."""
    vendor = parse_error(body)
    vendor.param = _named(vendor, secrets)
    detail = f"HTTP {status}: " + redacted(body[:MAX_EXCERPT_BYTES].decode("utf-8", "replace"), secrets, MAX_EXCERPT_BYTES)
    return _classified(status, vendor, redacted(vendor.message, secrets), retry_after_s(headers, now_s), detail)


def error_in_success(content: Any, *, secrets: Sequence[str]) -> GatewayError:
    """The typed error of an error object that came with status 200, whole or in a stream: only its labels classify it."""
    vendor = error_from(content)
    vendor.param = _named(vendor, secrets)
    message = redacted(vendor.message, secrets)
    detail = f"error inside HTTP 200: code {vendor.code!r}, type {vendor.type!r}: {message}"[:MAX_EXCERPT_BYTES]
    return _classified(vendor.status or _implied_status(vendor), vendor, message, None, redacted(detail, secrets, MAX_EXCERPT_BYTES))


def is_error(content: Any) -> bool:
    """OpenAI's `{"error": …}`, and the flat `{"object": "error", …}` of older vLLM."""
    return isinstance(content, dict) and (bool(content.get("error")) or content.get("object") == "error")


def why_not(body: bytes, problem: Exception | str, other: str, secrets: Sequence[str]) -> GatewayError:
    """The error that `body`, which came with status 200, tells of, else ProviderNonsense: no JSON, or with the sentence `other`.
    `problem` is what the decoder said."""
    try:
        content = msgspec.json.decode(body)
    except UNREADABLE:
        return ProviderNonsense("The provider's answer is not JSON.", detail=f"{len(body)} bytes, {type(problem).__name__}")
    return error_in_success(content, secrets=secrets) if is_error(content) else ProviderNonsense(other, detail=str(problem)[:200])


def _named(vendor: VendorError, secrets: Sequence[str]) -> str | None:
    """The field that the vendor names, fit for a client."""
    return redacted(vendor.param, secrets, _MAX_PARAM_CHARS) if vendor.param else None


def _implied_status(vendor: VendorError) -> int:
    labels = vendor.labels
    if _ACCOUNT.search(labels):
        return 401
    if _LIMITED.search(labels):
        return 429
    if _NO_MODEL.search(labels):
        return 404
    if _CONTEXT.search(labels) or _BLOCKED.search(labels) or _BAD_REQUEST.search(labels):
        return 400
    return 500


def _classified(status: int, vendor: VendorError, message: str, retry_s: float | None, detail: str) -> GatewayError:
    if status >= 500:
        return ProviderFault(f"The provider failed with status {status}.", retry_after_s=retry_s, detail=detail, vendor_status=status)
    if status == 429:
        return _limited(vendor, message, retry_s, detail)
    if status == 404 or (status in (400, 401, 403) and _NO_MODEL.search(vendor.labels)):
        return _not_found(status, vendor, detail)
    if status in (401, 402, 403) or (status == 400 and (_ACCOUNT.search(vendor.labels) or _ACCOUNT_TEXT.search(vendor.words))):
        return ProviderRejectedOurKey(REJECTED_OUR_KEY, detail=detail, vendor_status=status)
    if status == 408:
        text = "The provider gave up waiting for the request."
        return ProviderTimeout(text, retry_after_s=retry_s, detail=detail, vendor_status=status)
    if 400 <= status < 500:
        return _refused(status, vendor, message, detail)
    if 300 <= status < 400:
        text = f"The provider answered with a redirect ({status}), which is not followed; correct its base URL."
        return ProviderNonsense(text, detail=detail, vendor_status=status)
    return ProviderNonsense(f"The provider answered with the unexpected status {status}.", detail=detail, vendor_status=status)


def _limited(vendor: VendorError, message: str, retry_s: float | None, detail: str) -> GatewayError:
    if _ACCOUNT.search(vendor.labels):
        return ProviderRejectedOurKey(
            "The quota of our account at the provider is used up. An administrator must look.", detail=detail, vendor_status=429
        )
    if _TOO_LARGE.search(vendor.message):  # OpenAI's code is that of any limit
        text = message or "the request is larger than its rate limit allows"
        return ProviderRefused(f"The provider refused the request: {text}", param=vendor.param, detail=detail, vendor_status=429)
    return ProviderLimited(RATE_LIMITED, retry_after_s=retry_s, detail=detail, vendor_status=429)


def _not_found(status: int, vendor: VendorError, detail: str) -> GatewayError:
    if _NO_MODEL.search(f"{vendor.labels} {vendor.message}"):
        return ProviderLacksModel(LACKS_MODEL, detail=detail, vendor_status=status)
    return ProviderNonsense("Nothing is found under the provider's base URL; correct it.", detail=detail, vendor_status=status)


def _refused(status: int, vendor: VendorError, message: str, detail: str) -> GatewayError:
    words = vendor.words
    text = message or f"it answered {status} without a reason"
    if status in (400, 413) and _CONTEXT.search(words):
        return ContextTooLong(f"The prompt is too long for the model: {text}", param=vendor.param, detail=detail)
    if status == 400 and _BLOCKED.search(words):
        return ContentBlocked(f"The provider blocked the content: {text}", param=vendor.param, detail=detail)
    return ProviderRefused(f"The provider refused the request: {text}", param=vendor.param, detail=detail, vendor_status=status)


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds to wait, from `retry-after-ms`, else `retry-after` as seconds or as an HTTP date; None where unreadable."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        # Azure sends retry-after-ms: 0 beside retry-after: 1.
        if 0 < seconds < 1e7 or (seconds == 0 and scale == 1):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return None
