"""A vendor's error answer becomes one typed error, whatever its shape; secrets do not come through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import errors
from providers.adapters.openai_errors import error_of_status, redacted, retry_after_s
from tests.adapters.cast import KEY

NOW_S = 1_700_000_000.0


def error_for(status: int, body: Any, headers: dict[str, str] | None = None) -> errors.GatewayError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_of_status(status, headers or {}, raw, secrets=(KEY,), now_s=NOW_S)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": {"message": "Bad value", "param": "n"}}, errors.ProviderRefused),
        (400, {"error": {"message": "m", "code": "context_length_exceeded"}}, errors.ContextTooLong),
        (400, {"error": {"message": "your messages exceed the maximum context length of 8192 tokens"}}, errors.ContextTooLong),
        (400, {"error": {"message": "m", "code": "content_filter"}}, errors.ContentBlocked),
        (400, {"error": {"message": "m", "code": "content_policy_violation"}}, errors.ContentBlocked),
        (400, {"error": {"message": "m", "code": "data_inspection_failed"}}, errors.ContentBlocked),
        (400, {"error": {"message": "m", "code": "Arrearage"}}, errors.ProviderRejectedOurKey),
        (
            400,
            {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***"},
            errors.ProviderRejectedOurKey,
        ),
        (400, {"error": {"message": "messages[0]: billing is no role", "type": "invalid_request_error"}}, errors.ProviderRefused),
        (400, b"", errors.ProviderRefused),
        (401, {"error": {"message": "m", "code": "invalid_api_key"}}, errors.ProviderRejectedOurKey),
        (401, {"error": {"message": "m", "code": "invalid_model"}}, errors.ProviderLacksModel),
        (402, {"error": {"message": "Insufficient Balance"}}, errors.ProviderRejectedOurKey),
        (403, {"error": {"code": "AccountOverdueError", "message": "m"}}, errors.ProviderRejectedOurKey),
        (404, {"error": {"message": "m", "code": "model_not_found"}}, errors.ProviderLacksModel),
        (404, {"error": "model 'nope' not found"}, errors.ProviderLacksModel),
        (404, {"error": {"code": "DeploymentNotFound", "message": "m"}}, errors.ProviderLacksModel),
        (404, b"<html>not here</html>", errors.ProviderNonsense),
        (413, {"error": {"message": "too big"}}, errors.ProviderRefused),
        (422, b"Failed to deserialize", errors.ProviderRefused),
        (429, {"error": {"message": "m", "code": "rate_limit_exceeded"}}, errors.ProviderLimited),
        (429, b"", errors.ProviderLimited),
        (429, {"error": {"message": "m", "code": "insufficient_quota"}}, errors.ProviderRejectedOurKey),
        (429, {"error": {"message": "m", "type": "exceeded_current_quota_error"}}, errors.ProviderRejectedOurKey),
        (429, {"error": {"code": "QuotaExceeded", "message": "m"}}, errors.ProviderRejectedOurKey),
        (429, {"error": {"message": "Request too large for gpt-4o"}}, errors.ProviderRefused),
        (500, {"error": {"message": "our policy context_length broke", "code": "content_filter"}}, errors.ProviderFault),
        (502, b"<html>Bad Gateway</html>", errors.ProviderFault),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, errors.ProviderFault),
        (529, b"", errors.ProviderFault),
        (302, b"", errors.ProviderNonsense),
        (204, b"", errors.ProviderNonsense),
        (400, {"error": {"message": "exceeds the context length of", "code": "invalid_value"}}, errors.ProviderRefused),
        (400, {"error": {"message": "no rate limit, content filter or context window", "code": "wrong_tool"}}, errors.ProviderRefused),
        (400, {"error": {"message": "Range of input length should be [1, 9]", "code": "invalid_parameter_error"}}, errors.ContextTooLong),
        (400, {"error": {"code": "InvalidParameter", "message": "Total tokens … exceed max message tokens."}}, errors.ContextTooLong),
        (400, {"error": {"code": "InputTextSensitiveContentDetected", "message": "m", "type": "BadRequest"}}, errors.ContentBlocked),
        (400, {"code": "Arrearage", "message": "Access denied", "request_id": "r"}, errors.ProviderRejectedOurKey),
        (401, {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "r"}, errors.ProviderRejectedOurKey),
        (403, {"error": {"code": "model_not_found", "message": "m"}}, errors.ProviderLacksModel),
        (
            404,
            {"error": {"message": "Not found the model k9 or Permission denied", "type": "resource_not_found_error"}},
            errors.ProviderLacksModel,
        ),
        (404, {"error": {"code": "InvalidEndpointOrModel.NotFound", "message": "m", "type": "NotFound"}}, errors.ProviderLacksModel),
        (404, {"error": {"code": "404", "message": "Resource not found"}}, errors.ProviderNonsense),
        (429, {"error": {"code": "ServerOverloaded", "message": "m", "type": "TooManyRequests"}}, errors.ProviderLimited),
        (500, b"[" * 100_000, errors.ProviderFault),
        (400, b"\xff\xfe{", errors.ProviderRefused),
        (400, {"error": {"message": ["no", "text"], "code": {"a": 1}, "param": 7}}, errors.ProviderRefused),
    ],
)
def test_the_status_decides_and_the_code_refines(status: int, body: Any, error: type) -> None:
    found = error_for(status, body)
    assert type(found) is error
    assert found.message
    assert "html" not in found.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"Failed to deserialize the JSON body: missing field `role`", "Failed to deserialize the JSON body: missing field `role`"),
        (b"<html>no</html>", "it answered 422 without a reason"),
        (b"{broken", "it answered 422 without a reason"),
        ({"detail": [{"type": "missing", "loc": ["body", "messages", 0], "msg": "Field required"}]}, "body.messages.0: Field required"),
        (
            {"object": "error", "message": {"detail": [{"loc": ["body", "x"], "msg": "Extra inputs"}, {"msg": "b"}]}},
            "body.x: Extra inputs; b",
        ),
        ({"detail": "Unprocessable"}, "Unprocessable"),
        ({"detail": [7, {"loc": 3}]}, "it answered 422 without a reason"),
    ],
)
def test_the_reason_is_found_wherever_it_stands(body: Any, words: str) -> None:
    assert error_for(422, body).message == f"The provider refused the request: {words}"


def test_a_block_by_azure_says_so_whatever_stands_inside() -> None:
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
    found = error_for(
        400, {"error": {"message": "The response was filtered.", "code": "content_filter", "status": 400, "innererror": inner}}
    )
    assert type(found) is errors.ContentBlocked


def test_a_refusal_keeps_the_vendors_words_and_the_parameter() -> None:
    found = error_for(400, {"error": {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens"}})
    assert found.message == "The provider refused the request: Unsupported parameter: 'max_tokens'"
    assert found.param == "max_tokens"
    assert isinstance(found, errors.ProviderError)
    assert found.vendor_status == 400


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 307])
def test_our_key_comes_through_nowhere(status: int) -> None:
    found = error_for(status, {"error": {"message": f"Invalid: {KEY}. Authorization: Bearer {KEY}", "code": f"x{KEY}", "type": KEY}})
    assert KEY not in f"{found.message} {found.detail}"
    assert "4242abcd" not in f"{found.message} {found.detail}"


def test_an_excerpt_is_short_and_only_in_the_detail() -> None:
    found = error_for(502, b"<html>" + b"x" * 10_000)
    assert found.detail is not None
    assert len(found.detail) < 560
    assert "xxx" not in found.message


@pytest.mark.parametrize(
    "text",
    [
        "sk-abcdefghijkl",
        "sk-proj-Ab12_cd-34",
        "gsk_abcdef123456",
        "AIzaSyA1234567890abc",
        "xai-1234567890",
        "hf_abcdefgh1234",
        "eyJhbGciOiJIUzI1NiJ9.e30.abc",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    shown = redacted(f"before {text} after")
    assert shown == "before **** after"


@pytest.mark.parametrize(
    "text",
    ["gpt-4o-mini-2024-07-18", "claude-3-5-sonnet-20241022", "max_completion_tokens", "messages[3].tool_calls[0].id", "a task-based mask"],
)
def test_what_does_not_is_kept(text: str) -> None:
    assert redacted(text) == text


def test_a_bearer_header_and_an_assigned_key_are_masked() -> None:
    assert "hunter2secret" not in redacted('Authorization: Bearer hunter2secret; api_key="hunter2secret", apikey: hunter2secret')


def test_text_is_one_printable_line_of_bounded_length() -> None:
    shown = redacted("a\x1b[31m\r\nb\u2028c" + "x" * 10_000)
    assert shown.isprintable()
    assert len(shown) == 500


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_the_wait_a_vendor_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW_S) == seconds
    assert error_for(429, b"", headers).retry_after_s == seconds


@pytest.mark.parametrize("body", [{"message": "m", "code": "content_filter"}, {"message": "m"}, {"message": "context window"}])
def test_a_secret_in_the_name_of_a_field_does_not_come_through(body: dict[str, Any]) -> None:
    found = error_for(400, {"error": {**body, "param": f"headers[{KEY}]\n<b>"}})
    assert found.param is not None
    assert KEY not in found.param
    assert found.param.isprintable()
