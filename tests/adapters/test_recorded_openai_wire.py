"""Real answers on OpenAI's wire, read into the event model, as clients of other dialects get them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import errors
from core.conversation import Reasoning, Text, ToolUse
from core.events import Result, gathered
from providers.adapters.openai_stream import OpenAIStreamReader, read_usage
from providers.adapters.openai_wire import OpenAIWireStream, result_from_wire
from providers.adapters.sse import SseDecoder
from tests import replay
from tests.adapters.cast import Heard

VENDORS = [path.name for path in sorted(replay.RECORDED.glob("*")) if path.is_dir()]
ANSWERS = [param for param in replay.chat_exchanges(*VENDORS) if param.values[0] is None or param.values[0]["response"]["status"] == 200]
CUTS = (0, 1, 7)  # bytes a read, 0 = all at once
ERRORS = {
    "deepseek-insufficient-system-resource-r571e9": errors.ProviderFault,
    "groq-mid-stream-error-009fa8": errors.ProviderRefused,
    "groq-mid-stream-error-eba423": errors.ProviderRefused,
}


class FirstChoice(Heard):
    def _choice(self, choice: dict[str, Any]) -> None:
        if choice.get("index", 0) == 0:
            super()._choice({"index": 0, **choice})


def test_the_recordings_are_here() -> None:
    replay.require()
    assert len(ANSWERS) > 80


@pytest.mark.parametrize("exchange", ANSWERS)
def test_an_answer_says_as_an_event_model_what_it_said(exchange: dict[str, Any]) -> None:
    body = replay.body_of(exchange["response"])
    streamed = "lines" in exchange["response"]
    if expected := ERRORS.get(exchange["id"]):
        for cut in CUTS:
            with pytest.raises(expected):
                read_stream(body, cut) if streamed else result_from_wire(body)
    elif streamed:
        for cut in CUTS:
            check_stream(read_stream(body, cut), body)
    else:
        check_answer(result_from_wire(body), json.loads(body))


def read_stream(body: bytes, cut: int) -> Result:
    sse, wire, events = SseDecoder(), OpenAIWireStream(), []
    step = cut or len(body)
    for start in range(0, len(body), step):
        for event in sse.feed(body[start : start + step]):
            events += [] if wire.done else wire.read(event)
    wire.finish()
    return gathered(events)


def texts(result: Result, kind: type[Text] | type[Reasoning]) -> str:
    return "".join(part.text for part in result.parts if isinstance(part, kind))


def calls(result: Result) -> list[tuple[str, str, str]]:
    return [(part.id, part.name, part.arguments) for part in result.parts if isinstance(part, ToolUse)]


def check_stream(result: Result, body: bytes) -> None:
    said, passing = FirstChoice(body), OpenAIStreamReader(True)
    passing.feed(body)
    assert (texts(result, Text), texts(result, Reasoning)) == (said.text, said.reasoning)
    assert calls(result) == [(call["id"], call["name"], call["arguments"]) for call in said.tools.values()]
    assert (result.ended.reason, result.usage) == (said.finish[0], passing.usage)
    assert result.model == next((chunk["model"] for chunk in said.chunks if chunk.get("model")), "")


def check_answer(result: Result, body: Any) -> None:
    choice = body["choices"][0]
    message = choice.get("message") or {}
    if not isinstance(message.get("content"), list):
        assert texts(result, Text) == (message.get("content") or "")
        assert texts(result, Reasoning) == (message.get("reasoning_content") or message.get("reasoning") or "")
    asked = [call["function"] for call in message.get("tool_calls") or ()]
    assert [call[1:] for call in calls(result)] == [(function["name"], function["arguments"]) for function in asked]
    assert result.ended.reason == choice["finish_reason"]
    assert result.usage == read_usage(body.get("usage"), body.get("service_tier"))
