"""A25, A28, A52: what is said between a caller and a vendor is not kept, a vendor that repeats our key is not repeated, and no text
makes a line of the log."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import until
from tests.security.house import House

pytestmark = pytest.mark.process
CREDENTIAL = "sk-vendor-credential-that-is-echoed-4242"


@pytest.mark.parametrize("stream", [False, True])
def test_a_vendor_that_repeats_our_key_is_not_repeated(house: House, stream: bool) -> None:
    model = house.model("fault-echo-key", api_key=CREDENTIAL)
    answer = house.ask(model, stream=stream)
    assert answer.status in (400, 502)
    row = house.control.request(answer.request_id)
    records = house.control.records(answer.request_id)
    for shown in (answer.body.decode(), str(answer.headers), str(row), str(records)):
        assert CREDENTIAL not in shown
        assert CREDENTIAL[:16] not in shown
    for name, held in house.stored().items():
        assert CREDENTIAL.encode() not in held, name


@pytest.mark.parametrize("fault", ["fault-html-200", "fault-wrong-shape", "fault-garbage-json", "fault-401", "fault-404"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_vendor_says_instead_of_an_answer_is_not_handed_on(house: House, fault: str, stream: bool) -> None:
    answer = house.ask(house.model(fault, api_key=CREDENTIAL), stream=stream)
    assert answer.status == 502
    for words in (b"captive portal", b"<html", b"Incorrect API key", str(house.vendor_port).encode(), b"127.0.0.1", CREDENTIAL.encode()):
        assert words not in answer.body


# A28 ------------------------------------------------------------------------------------------------------------------


def prompts(word: str) -> list[tuple[str, dict[str, Any]]]:
    """The word in every place of a request that holds somebody's text. Its `user` is kept on purpose: budgets count by it."""
    said = f"my secret is {word}"
    tool = {"type": "function", "function": {"name": "f", "description": said, "parameters": {"type": "object", "description": said}}}
    called = {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{said}"}}'}}],
    }
    chat = "/v1/chat/completions"
    return [
        (chat, {"messages": wire.asking(said)}),
        (chat, {"messages": wire.asking(said), "stream": True}),
        (chat, {"messages": [{"role": "system", "content": said}, *wire.HELLO]}),
        (chat, {"messages": [{"role": "user", "content": [{"type": "text", "text": said}]}]}),
        (chat, {"messages": wire.asking(said), "tools": [tool]}),
        (chat, {"messages": [*wire.HELLO, called, {"role": "tool", "tool_call_id": "c", "content": said}]}),
        (chat, {"messages": wire.asking(said), "metadata": {"note": said}, "stop": [said]}),
        (chat, {"messages": wire.asking(said), "temperature": said}),
        (chat, {"messages": wire.asking(said), "n": 10**6}),
        (chat, {"messages": said}),
        (chat, {"messages": [{"role": said, "content": 5}]}),
        (chat, {"messages": wire.asking(said), said: said}),
        ("/v1/messages", {"messages": wire.asking(said), "max_tokens": 5, "system": said}),
        ("/v1/responses", {"input": said, "instructions": said}),
        ("/v1/completions", {"prompt": said}),
        ("/api/generate", {"prompt": said}),
        ("/api/count-tokens", {"text": said}),
    ]


@pytest.mark.parametrize("behaviour", ["ok@tokens=3", "fault-500", "fault-garbage-json", "fault-reset", "fault-eof-midstream"])
def test_no_prompt_and_no_answer_is_kept(house: House, behaviour: str) -> None:
    """Nor with errors, on whose way a text is likeliest to be quoted. The house's echo model repeats the prompt in its answer."""
    word = secrets.token_hex(12)
    models = [house.model(behaviour), str(house.live.model)]
    asked = [
        wire.call(house.live.base_url, "POST", path, key=house.key, body={"model": model, **body})
        for model in models
        for path, body in prompts(word)
    ]
    assert {answer.status for answer in asked} & {200, 400, 502}
    house.control.request(asked[0].request_id)  # drained
    for name, held in house.stored().items():
        assert word.encode() not in held, name


def test_nor_where_idempotency_keeps_an_answer(house: House) -> None:
    """In memory, for LLM_IDEMPOTENCY_TTL_S."""
    word = secrets.token_hex(12)
    for _ in range(2):
        assert wire.chat(house.live.base_url, house.key, str(house.live.model), word, headers={"Idempotency-Key": word[:8]}).status == 200
    assert not [name for name, held in house.stored().items() if word.encode() in held]


# A52 ------------------------------------------------------------------------------------------------------------------

INJECTED = "x\r\n2026-01-01 00:00:00,000 ERROR injected: forged\x1b[31mred\u2028line\x00end"


def test_no_text_makes_a_line_of_the_log(house: House) -> None:
    base, token = house.live.base_url, {"Authorization": f"Token {house.live.admin_token}"}
    quoted = "x%0d%0a2026-01-01 00:00:00,000 ERROR injected: forged%1b[31m".replace(" ", "%20")
    fields: list[dict[str, Any]] = [{"model": INJECTED}, {"user": INJECTED}, {"messages": INJECTED}, {INJECTED: 1}, {"stop": INJECTED}]
    for body in fields:
        wire.call(base, "POST", "/v1/chat/completions", key=house.key, body={"model": "echo-1", "messages": wire.HELLO, **body})
    for path in (
        f"/v1/{quoted}",
        f"/admin/{quoted}/",
        f"/api/v1/{quoted}",
        f"/{quoted}",
        f"/v1/models/{quoted}",
        f"/api/v1/requests?{quoted}=1",
    ):
        for method in ("GET", "POST", "DELETE"):
            wire.call(base, method, path, headers=token)
            wire.call(base, method, path, key=house.key)
    house.raw(b"GET /admin/ HTTP/1.1\r\nHost: x\x1b[31minjected\r\nConnection: close\r\n\r\n", timeout_s=5)
    house.raw(
        b"GET /admin/ HTTP/1.1\r\nHost: x\r\nReferer: http://x/\x1b[31m\r\nCookie: csrftoken=\x1b[31m\r\nConnection: close\r\n\r\n",
        timeout_s=5,
    )
    for name in ("provider", "team"):
        path, row = f"/api/v1/llm/{name}s", {"name": INJECTED, "provider_type": "openai_compatible", "config": {"base_url": INJECTED}}
        wire.call(base, "POST", path, body=row if name == "provider" else {"name": INJECTED}, headers=token)
    until(house.alive, "it goes on")
    text = house.live.log.read_bytes().decode(errors="replace")
    assert "\x1b" not in text
    assert "\u2028" not in text
    assert not [line for line in text.splitlines() if "ERROR injected" in line[:60]]


def test_no_text_makes_a_header_of_an_answer(house: House) -> None:
    for name in ("x-request-id", "idempotency-key", "user-agent", "origin"):
        answer = wire.call(house.live.base_url, "GET", "/v1/models", key=house.key, headers={name: "a%0d%0aX-Evil: 1\u00e9"})
        assert "x-evil" not in answer.headers
    answer, _ = house.raw(b"GET /admin%0d%0aX-Evil:%201/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", timeout_s=5)
    assert b"\r\nX-Evil" not in answer
