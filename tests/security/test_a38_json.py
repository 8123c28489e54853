"""A38, A39: JSON that is meant to hurt: a 4xx with the field's name where there is one, and a worker that lives on."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import ChatRequest
from core.errors import InvalidRequest
from gateway.doors import anthropic_messages, completions, embeddings, openai_chat, responses
from providers.adapters import registry
from tests.adapters.cast import SECRET, model, provider
from tests.e2e import wire
from tests.security.house import House

HI = [{"role": "user", "content": "hi"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/messages": {"messages": HI, "max_tokens": 5},
    "/v1/responses": {"input": "hi"},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/api/generate": {"prompt": "hi"},
}
DEEP = 100_000


def spelled(path: str, more: bytes, **fields: Any) -> bytes:
    """A good body of the house's echo model with more in it, written as given."""
    return json.dumps({"model": "echo-1", **GOOD[path], **fields}).encode()[:-1] + b"," + more + b"}"


NASTY = {
    "ten megabytes of brackets, as far as the limit goes": b'"x":' + b"[" * 4_000_000,
    "arrays": b'"x":' + b"[" * DEEP + b"]" * DEEP,
    "objects": b'"x":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "many fields": b",".join(b'"k%d":1' % n for n in range(300_000)),
    "not a number": b'"x":NaN',
    "infinity": b'"x":-Infinity',
    "half a surrogate pair": b'"user":"\\ud800"',
    "half a surrogate pair in a name": b'"\\ud800":1',
    "a number beyond doubles": b'"temperature":1e400',
    "5 000 digits": b'"temperature":' + b"9" * 5000,
    "not UTF-8": b'"x":"\xff\xfe"',
    "a bare control character": b'"x":"\x01"',
    "a leading zero": b'"x":01',
    "a comment": b'/* */"x":1',
    "a trailing comma": b'"x":1,',
    "a second document": b'"x":1}{"y":1',
    "a byte order mark inside": b'\xef\xbb\xbf"x":1',
}


@pytest.mark.process
@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("what", NASTY)
def test_it_is_refused(house: House, path: str, what: str) -> None:
    answer = wire.call(house.live.base_url, "POST", path, key=house.key, body=spelled(path, NASTY[what]))
    assert answer.status == 400, answer
    assert house.alive()


@pytest.mark.process
@pytest.mark.parametrize("kind", ["echo", "anthropic", "gemini", "dashscope"])
@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5000, b"-" + b"9" * 400])
def test_a_number_that_nobody_can_hold_is_the_callers_mistake(house: House, kind: str, number: bytes) -> None:
    """In parts that a vendor of the same wire would be sent unread, and that a translation reads."""
    alias = f"numbers-{kind}"
    if alias not in house.control.models():
        there = "" if kind == "echo" else house.vendor.base_url
        row = house.control.provider(there, kind=kind, api_key="" if kind == "echo" else "sk-vendor-of-numbers")
        house.control.model(row, "echo-1", alias=alias)
        house.control.apply()
    tool = b'[{"type":"function","function":{"name":"f","x":%b,"parameters":{"type":"object","x":%b}}}]' % (number, number)
    for more in (b'"verbosity":' + number, b'"seed":' + number, b'"tools":' + tool, b'"metadata":{"a":%b}' % number, b'"top_k":' + number):
        answer = wire.call(house.live.base_url, "POST", "/v1/chat/completions", key=house.key, body=_to(alias, more))
        assert answer.status != 500, (more[:40], answer.body[:300])


def _to(alias: str, more: bytes) -> bytes:
    return json.dumps({"model": alias, "messages": HI}).encode()[:-1] + b"," + more + b"}"


@pytest.mark.process
def test_of_a_field_that_is_there_twice_the_vendor_gets_the_one_that_was_judged(house: House) -> None:
    """Nothing is judged by one value and sent with another. (Not refused, as the attack's table has it: to see a second one
    costs each request a second reading.)"""
    alias = house.model("ok@tokens=3")
    first = b'{"model":"no-such-model","max_tokens":100,"messages":[{"role":"user","content":"another"}],'
    body = first + b'"model":"%b","messages":%b,"max_tokens":7}'
    shown = body % (alias.encode(), json.dumps(wire.asking("twice")).encode())
    answer = wire.call(house.live.base_url, "POST", "/v1/chat/completions", key=house.key, body=shown)
    assert answer.status == 200
    assert [call["model"] for call in house.vendor.calls("twice")] == ["ok@tokens=3"]
    hidden = body % (b"no-such-model", json.dumps(HI).encode())
    assert wire.call(house.live.base_url, "POST", "/v1/chat/completions", key=house.key, body=hidden).status == 404


# A39 ------------------------------------------------------------------------------------------------------------------

MANY = 100_000
SIZES: list[tuple[str, str, Any]] = [
    ("/v1/chat/completions", "n", 10**6),
    ("/v1/chat/completions", "n", -1),
    ("/v1/chat/completions", "n", "2"),
    ("/v1/chat/completions", "max_tokens", 10**12),
    ("/v1/chat/completions", "max_tokens", -1),
    ("/v1/chat/completions", "max_tokens", "5"),
    ("/v1/chat/completions", "max_completion_tokens", 10**12),
    ("/v1/chat/completions", "top_logprobs", 10**6),
    ("/v1/chat/completions", "logprobs", 5),
    ("/v1/chat/completions", "tools", [{}] * MANY),
    ("/v1/chat/completions", "stop", ["a"] * MANY),
    ("/v1/chat/completions", "messages", HI * MANY),
    ("/v1/messages", "max_tokens", 10**12),
    ("/v1/messages", "max_tokens", "5"),
    ("/v1/messages", "stop_sequences", ["a"] * MANY),
    ("/v1/messages", "tools", [{}] * MANY),
    ("/v1/messages", "messages", HI * 50_000),
    ("/v1/messages", "top_k", -1),
    ("/v1/responses", "max_output_tokens", 10**12),
    ("/v1/responses", "tools", [{}] * MANY),
    ("/v1/completions", "n", 10**6),
    ("/v1/completions", "best_of", 10**6),
    ("/v1/completions", "max_tokens", 10**12),
    ("/v1/completions", "logprobs", 10**6),
    ("/v1/completions", "stop", ["a"] * MANY),
    ("/v1/embeddings", "dimensions", -1),
    ("/v1/embeddings", "dimensions", "5"),
    ("/api/generate", "max_tokens", 10**12),
    ("/api/generate", "max_tokens", "5"),
    ("/api/generate", "temperature", "hot"),
]


@pytest.mark.process
@pytest.mark.parametrize(("path", "field", "value"), SIZES, ids=[f"{path} {field} {str(value)[:12]}" for path, field, value in SIZES])
def test_what_is_too_much_is_refused_by_name(house: House, path: str, field: str, value: Any) -> None:
    answer = wire.call(house.live.base_url, "POST", path, key=house.key, body={"model": "echo-1", **GOOD[path], field: value})
    assert answer.status == 400, answer.body[:300]
    assert field in answer.json["error"]["message"]


# Any JSON at all ------------------------------------------------------------------------------------------------------

DIALECTS = [openai_chat, anthropic_messages, responses, completions, embeddings]
NAMES = ["model", "messages", "input", "prompt", "max_tokens", "n", "stop", "tools", "stream", "content", "role", "text", "type", "system",
         "tool_calls", "function", "name", "parameters", "thinking", "metadata", "user", "image_url", "url", "source", "data"]  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.sampled_from(["user", "text", "hi"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5), max_leaves=12
)
ADAPTERS = [registry.adapter_for(provider(kind)) for kind in ("openai", "openai_compatible", "anthropic", "gemini", "dashscope")]


@settings(deadline=None, max_examples=150)
@given(fields=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8), number=st.integers(0, len(DIALECTS) - 1))
def test_whatever_is_sent_becomes_a_call_or_is_refused(fields: dict[str, Any], number: int) -> None:
    """Read by each dialect and put into every vendor's words: a refusal, or a call; never another exception."""
    dialect = cast(Any, DIALECTS[number])
    body = json.dumps({**GOOD[list(GOOD)[number]], "model": "m", **fields}).encode()
    try:
        request: ChatRequest = dialect.parse(body)
    except InvalidRequest:
        return
    for adapter in ADAPTERS:
        try:
            adapter.chat_call(request, model(), SECRET)
        except (InvalidRequest, msgspec.DecodeError):  # the second is made the first where calls are sent
            continue
