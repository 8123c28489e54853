"""What is kept of headers: values of those that hold no secret, names of the others, and of both no more than the bounds."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from core.secrets import Secret
from gateway.kept_headers import MASK, MAX_VALUE, MOST, MOST_ATTEMPTS, Heard, kept
from monitoring.body_queue import Headers

OPAQUE = "Zq3vT9xLw2Rk8Yb1"


def of_request(*headers: tuple[str, str]) -> list[tuple[str, str]]:
    return read([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]).request


def of_vendor(*headers: tuple[str, str], secret: str = "") -> list[tuple[str, str]]:
    (attempt,) = read([], [Heard(1, 200, headers, Secret(secret) if secret else None)]).attempts
    return attempt.headers


def read(request: list[tuple[bytes, bytes]], heard: Iterable[Heard] = ()) -> Headers:
    return msgspec.json.decode(kept(request, [], heard), type=Headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user-agent", "OpenAI/Python 1.58.1"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"),
        ("user-agent", "PostmanRuntime/7.39.0 LangChain-OpenAI/0.2 CPython/3.11.7 iPhone16,2 Mobile/15E148"),
        ("content-type", "application/json; charset=utf-8"),
        ("anthropic-beta", "prompt-caching-2024-07-31,fine-grained-tool-streaming-2025-05-14"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("x-stainless-runtime-version", "3.11.7"),
        ("x-request-timeout-s", "30"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ],
)
def test_what_holds_no_secret_is_kept_whole(name: str, value: str) -> None:
    assert of_request((name, value)) == [(name, value)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
        ("anthropic-ratelimit-tokens-reset", "2026-11-22T02:27:52Z"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("openai-model", "gpt-4o-mini-2024-07-18"),
        ("cf-ray", "8e2f1b7a9c3d4e5f-FRA"),
        ("retry-after", "20"),
        ("date", "Sun, 22 Nov 2026 02:27:52 GMT"),
    ],
)
def test_what_vendors_say_to_be_found_again_by_is_kept(name: str, value: str) -> None:
    assert of_vendor((name, value)) == [(name, value)]


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token"),
        *("x-amz-security-token", "x-forwarded-for", "referer", "idempotency-key", "x-custom", "openai-organization", "x-request-id"),
    ],
)
def test_of_every_other_header_only_its_name_is_kept(name: str) -> None:
    assert of_request((name, "short")) == [(name, MASK)]


@pytest.mark.parametrize(
    "value",
    [
        OPAQUE,
        f"cli/1.0 key={OPAQUE}",
        f"cli ({OPAQUE}; x)",
        "cli sk-live-abcdefgh",
        f"cli a-{OPAQUE}-b",
        "cli 8Qd-zK3_vTx-9wL-b2Rk_Yq7",
        "a" * 30,
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_a_plain_header(value: str) -> None:
    ((_, left),) = of_request(("user-agent", value))
    assert OPAQUE not in left
    assert "abcdefgh" not in left
    assert "9wL" not in left
    assert "aaaa" not in left


@pytest.mark.parametrize("value", [OPAQUE, f"00-{OPAQUE}-b7ad6b7169203331-01"])
def test_a_trace_that_is_none_is_not_kept(value: str) -> None:
    assert of_request(("traceparent", value)) == [("traceparent", MASK)]


def test_names_may_hold_secrets_too() -> None:
    assert of_request((f"x-{OPAQUE.lower()}", "1"), ("sk-live-abcdefgh", "1"), ("x" * 65, "1")) == [(MASK, MASK)] * 3


def test_a_vendor_that_says_our_key_again_is_not_quoted() -> None:
    said = of_vendor(("x-request-id", "key-of-ours"), ("server", "v key-of-ours"), secret="key-of-ours")
    assert "key-of-ours" not in str(said)


def test_number_and_length_are_bounded() -> None:
    many = of_request(*[("accept", "x " * 500)] * (MOST + 7))
    assert (len(many), many[-1]) == (MOST + 1, ("…", "+7"))
    assert max(len(value) for _, value in many) <= MAX_VALUE
    heard = [Heard(number, 0, (), None) for number in range(40)]
    assert [attempt.attempt for attempt in read([], heard).attempts] == list(range(MOST_ATTEMPTS))


def test_bytes_that_are_no_text_and_lines_are_no_trouble() -> None:
    assert of_request(("user-agent", "a\xff\x00\r\n\x1bb")) == [("user-agent", "aÿ\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}b")]
