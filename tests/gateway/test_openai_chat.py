from __future__ import annotations

import json

import msgspec
import pytest

from core.errors import InvalidRequest
from gateway.doors import openai_chat

GOOD = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def parse(**changes: object):
    return openai_chat.parse(json.dumps({**GOOD, **changes}).encode())


def test_fields_travel_on_as_sent() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"\xc3\xa9","x":1}],"brand_new": {"a":[1, 2]},"seed":12345678901234567890}'
    request = openai_chat.parse(body)
    assert bytes(request.fields["brand_new"]) == b'{"a":[1, 2]}'
    assert bytes(request.fields["seed"]) == b"12345678901234567890"
    assert b'"x":1' in bytes(request.fields["messages"])


def test_what_we_read() -> None:
    request = parse(stream=True, stream_options={"include_usage": True}, max_completion_tokens=7)
    assert (request.model, request.stream, request.wants_usage, request.max_output_tokens) == ("m", True, True, 7)
    request = parse(stream=None, max_tokens=9)
    assert (request.stream, request.wants_usage, request.max_output_tokens) == (False, False, 9)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 42}]}, "messages[0].content"),
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"n": 1_000_000}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stop": ["x"] * 100}, "stop"),
        ({"tools": [{}] * 5000}, "tools"),
    ],
)
def test_wrong_fields_are_named(changes: dict, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**changes)
    assert refused.value.param == param
    assert refused.value.http_status == 400


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequest) as refused:
        openai_chat.parse(b'{"messages":[{"role":"user"}]}')
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"nul",
        b'{"model":"m"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"x":"\xff","model":"m","messages":[{"role":"u"}]}',
        b'{"n":NaN}',
    ],
    ids=["empty", "open", "array", "word", "cut", "deep-array", "deep-object", "bad-utf8", "nan"],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        openai_chat.parse(body)


def test_an_error_body_has_all_four_keys() -> None:
    body = msgspec.json.decode(openai_chat.error_body(InvalidRequest("no", param="n")))
    assert body == {"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "invalid_request"}}
