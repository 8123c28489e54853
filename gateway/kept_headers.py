"""Headers of requests whose bodies are kept, as they are kept: nothing in them that could be a secret.

A value is kept only of headers that are known to hold none, and what looks like a secret all the same is taken out of it. Of every
other header its name is kept, to say that it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from core.secrets import Secret
from monitoring.body_queue import AttemptHeaders, Headers, Pairs
from providers.adapters.openai_errors import redacted

MASK: Final = "[redacted]"
MOST: Final = 64
MAX_NAME, MAX_VALUE = 64, 200
MOST_ATTEMPTS: Final = 16

# Of clients, of vendors and of our own answers.
_PLAIN: Final = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "age", "alt-svc", "anthropic-beta", "anthropic-version", "cache-control"),
        *("connection", "content-encoding", "content-length", "content-type", "date", "expect", "host", "keep-alive", "openai-model"),
        *("openai-processing-ms", "openai-version", "pragma", "retry-after", "retry-after-ms", "server", "strict-transport-security"),
        *("te", "transfer-encoding", "upgrade", "user-agent", "vary", "x-accel-buffering", "x-content-type-options"),
        *("x-request-timeout-s", "x-should-retry"),
    }
)
_PLAIN_BEGINNINGS: Final = ("anthropic-ratelimit-", "x-ratelimit-", "x-stainless-", "x-llm-")
# Made by whoever answers, to be found again by. The same names in a request hold what its client likes.
_IDS_OF_ANSWERS: Final = frozenset(
    {
        *("apim-request-id", "cf-ray", "request-id", "x-amzn-requestid", "x-cloud-trace-context", "x-correlation-id"),
        *("x-ds-request-id", "x-goog-request-id", "x-log-id", "x-ms-request-id", "x-request-id", "x-trace-id", "x-tt-logid"),
    }
)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_WORD: Final = re.compile(r"[^\s,;=()\"':]+")
_RUN: Final = re.compile(r"[A-Za-z0-9]{12,}")
_LONG_RUN: Final = 24
# From small to capital letters to digits and back: words and versions do so a few times, what was drawn by chance at every other place.
_CHANGE: Final = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[A-Z])[a-z0-9]|(?<=[0-9])[A-Za-z]")
_MANY_CHANGES: Final = 8


class Heard(NamedTuple):
    """What a vendor's answer to one attempt began with; `status` 0 = it never did. `secret`: the key it was asked with."""

    attempt: int
    status: int
    headers: Iterable[tuple[str, str]]
    secret: Secret | None


def kept(request: Iterable[tuple[bytes, bytes]], response: Iterable[tuple[bytes, bytes]], heard: Iterable[Heard]) -> bytes:
    """As they go into the table: JSON of `Headers`."""
    attempts = [AttemptHeaders(each.attempt, each.status, _of_vendor(each)) for each in list(heard)[:MOST_ATTEMPTS]]
    return msgspec.json.encode(Headers(_pairs(_text(request), frozenset()), _pairs(_text(response), _IDS_OF_ANSWERS), attempts))


def _of_vendor(heard: Heard) -> Pairs:
    return _pairs(heard.headers, _IDS_OF_ANSWERS, [heard.secret.reveal()] if heard.secret else [])


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    return ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)


def _pairs(headers: Iterable[tuple[str, str]], ids: frozenset[str], secrets: list[str] | None = None) -> Pairs:
    found = list(headers)
    pairs = [(_name(name), _value(name, value, ids, secrets or [])) for name, value in found[:MOST]]
    return [*pairs, ("…", f"+{len(found) - MOST}")] if len(found) > MOST else pairs


def _name(name: str) -> str:
    return MASK if len(name) > MAX_NAME or _looks_secret(name) or redacted(name) != name else name


def _value(name: str, value: str, ids: frozenset[str], secrets: list[str]) -> str:
    if name == "traceparent" and _TRACEPARENT.fullmatch(value):
        return value
    if name in ids:
        return redacted(value, secrets, MAX_VALUE)
    if name not in _PLAIN and not name.startswith(_PLAIN_BEGINNINGS):
        return MASK
    text = redacted(value, secrets, MAX_VALUE)
    return _WORD.sub(lambda word: MASK if _looks_secret(word[0]) else word[0], text)


def _looks_secret(word: str) -> bool:
    """Whether it looks drawn by chance, as no word, number or version does."""
    return len(_CHANGE.findall(word)) >= _MANY_CHANGES or any(
        len(run) >= _LONG_RUN or not (run.isalpha() or run.isdecimal()) for run in _RUN.findall(word)
    )
