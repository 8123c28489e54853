"""Answers as Anthropic's messages: whole ones, and streams read back by the rules that its clients follow."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from core.conversation import Reasoning, Text, ToolUse
from core.errors import ProviderNonsense
from core.events import (
    Begun,
    ChatEvent,
    Counted,
    Ended,
    ReasoningDelta,
    RefusalDelta,
    Result,
    TextDelta,
    ToolBegun,
    ToolDelta,
    gathered,
    told,
)
from core.usage import Usage
from gateway.doors import anthropic_messages, anthropic_writing
from gateway.doors.anthropic_marks import shown_id, vendors_id

REQUEST = anthropic_messages.parse(b'{"model":"alias","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}')
STOP = Ended("stop", "stop")
CALLED = Ended("tool_calls", "tool_calls")


def pieces(events: Iterable[ChatEvent]) -> list[bytes]:
    """What the writer says to each event, then at the end, then as tail."""
    writer = anthropic_messages.stream_writer(REQUEST)
    written, ended, usage = [], STOP, None
    for event in events:
        match event:
            case Begun():
                written.append(writer.begin(event))
            case Counted():
                usage = event.usage
            case Ended():
                ended = event
            case _:
                written.append(writer.write(event))
    return [*written, writer.end(ended, usage), writer.tail()]


def read(stream: bytes) -> list[dict[str, Any]]:
    """The events; each must be named as its data says."""
    found = []
    for event in stream.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert stream.endswith(b"\n\n")
    return found


def message_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client puts together, checking the order as it goes: blocks come one after the other."""
    assert events[0]["type"] == "message_start"
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    message, inputs, is_open = dict(events[0]["message"]), {}, False
    assert message["content"] == []
    for event in events[1:-2]:
        at = event["index"]
        match event["type"]:
            case "content_block_start":
                assert (is_open, at) == (False, len(message["content"]))
                message["content"].append(event["content_block"])
                is_open = True
            case "content_block_delta":
                assert (is_open, at) == (True, len(message["content"]) - 1)
                delta, block = event["delta"], message["content"][at]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "signature_delta":
                        block["signature"] = delta["signature"]
                    case "input_json_delta":
                        inputs[at] = inputs.get(at, "") + delta["partial_json"]
            case "content_block_stop":
                assert (is_open, at) == (True, len(message["content"]) - 1)
                is_open = False
            case other:
                raise AssertionError(other)
    assert not is_open
    for at, said in inputs.items():
        message["content"][at]["input"] = json.loads(said)
    return {**message, **events[-2]["delta"], "usage": events[-2]["usage"]}


def streamed(*events: ChatEvent) -> dict[str, Any]:
    return message_of(read(b"".join(pieces([Begun("msg_1", "vendor-model"), *events]))))


def whole(*parts: Any, ended: Ended = STOP, **fields: Any) -> dict[str, Any]:
    return json.loads(anthropic_writing.whole(REQUEST, Result(list(parts), ended, "msg_1", "vendor-model", **fields)))


USAGE = Usage(input=7, input_audio=2, input_image=1, cached_input=4, cache_write=3, cache_write_1h=2, output=7, reasoning=5)
USAGE_SHOWN = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 2},
    "output_tokens": 12,
    "output_tokens_details": {"thinking_tokens": 5},
}


def test_a_whole_message() -> None:
    assert whole(Text("Hello ü"), usage=USAGE) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "vendor-model",
        "content": [{"type": "text", "text": "Hello ü"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE_SHOWN,
    }


def test_the_events_of_a_stream_in_their_order() -> None:
    stream = b"".join(pieces([Begun("msg_1", "vm"), TextDelta("Hel"), TextDelta('l"o\n'), Counted(USAGE), STOP]))
    events = read(stream)
    assert [event["type"] for event in events] == [
        *("message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    start = events[0]["message"]
    assert (start["id"], start["model"], start["role"], start["type"], start["stop_reason"]) == (
        "msg_1",
        "vm",
        "assistant",
        "message",
        None,
    )
    assert start["usage"]["input_tokens"] == REQUEST.estimated_input_tokens
    assert events[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": USAGE_SHOWN,
    }
    assert message_of(events)["content"] == [{"type": "text", "text": 'Hell"o\n'}]


def test_text_is_written_when_it_comes_and_the_tail_is_apart() -> None:
    _, first, second, _, tail = pieces([Begun(), TextDelta("a"), TextDelta("b")])
    assert b'"a"' in first
    assert b'"b"' in second
    assert read(tail) == [{"type": "message_stop"}]


RICH = Result(
    [
        Reasoning("Let me think.", "sig-1"),
        Reasoning(redacted="hidden"),
        Text("I will look."),
        ToolUse("toolu_1", "weather", '{"city":"Bonn"}', "seal"),
        ToolUse("toolu_2", "time"),
        Text("And then?"),
    ],
    CALLED,
    "msg_1",
    "vendor-model",
    usage=USAGE,
)
RICH_SHOWN = [
    {"type": "thinking", "thinking": "Let me think.", "signature": "sig-1"},
    {"type": "redacted_thinking", "data": "hidden"},
    {"type": "text", "text": "I will look."},
    {"type": "thinking", "thinking": "", "signature": "tool:seal"},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bonn"}},
    {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    {"type": "text", "text": "And then?"},
]


def test_thoughts_and_tool_calls_whole_and_streamed() -> None:
    message = json.loads(anthropic_writing.whole(REQUEST, RICH))
    assert message["content"] == RICH_SHOWN
    assert message["stop_reason"] == "tool_use"
    assert message_of(read(b"".join(pieces(told(RICH))))) == message


def test_a_signature_ends_its_thought() -> None:
    message = streamed(
        ReasoningDelta("a"), ReasoningDelta("b"), ReasoningDelta(signature="s1"), ReasoningDelta("c"), ReasoningDelta(signature="s2")
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "ab", "signature": "s1"},
        {"type": "thinking", "thinking": "c", "signature": "s2"},
    ]


ALTERNATING = [
    ToolBegun(0, "a", "f"),
    ToolBegun(1, "b", "g"),
    ToolDelta(1, '{"y":'),
    ToolDelta(0, '{"x":'),
    ToolDelta(1, "2}"),
    ToolDelta(0, "1}"),
]


def test_calls_whose_pieces_alternate_come_one_after_the_other() -> None:
    message = streamed(*ALTERNATING, CALLED)
    assert [(block["id"], block["input"]) for block in message["content"]] == [("a", {"x": 1}), ("b", {"y": 2})]
    written = pieces([Begun(), *ALTERNATING, CALLED])
    assert b'"partial_json":"{\\"x\\":"' in written[4], "the first call streams on"
    assert written[2] == written[3] == written[5] == b"", "the second one waits"


def test_calls_one_after_the_other_do_not_wait() -> None:
    written = pieces(
        [Begun(), ToolBegun(0, "a", "f"), ToolDelta(0, "{}"), ToolBegun(1, "b", "g"), ToolDelta(1, "{}"), TextDelta("done"), CALLED]
    )
    assert all(written)
    assert b'"tool_use"' in written[3]
    assert b'"done"' in written[5]


def test_what_follows_a_call_without_arguments_is_kept_in_order() -> None:
    message = streamed(ToolBegun(0, "a", "f"), TextDelta("so"), ToolBegun(1, "b", "g"), TextDelta(" it is"), ToolDelta(1, "{}"), CALLED)
    assert [block.get("text") or block["id"] for block in message["content"]] == ["a", "so", "b", " it is"]


def random_answer(rng: random.Random) -> list[ChatEvent]:
    """Thoughts, text, and parallel calls whose pieces come in any order that the event model allows."""
    events: list[ChatEvent] = [Begun("msg_1", "m"), ReasoningDelta("th"), ReasoningDelta("ink", "sig"), TextDelta("Hi ☃")]
    arguments = [json.dumps({"n": position, "s": '}{"☃'}) if rng.random() < 0.8 else "" for position in range(rng.randint(1, 5))]
    cut = []
    for position, text in enumerate(arguments):
        at = sorted(rng.choices(range(len(text) + 1), k=2))
        cut.append(
            [
                ToolBegun(position, f"id{position}", "f"),
                *(ToolDelta(position, piece) for piece in (text[: at[0]], text[at[0] : at[1]], text[at[1] :]) if text),
            ]
        )
    begun = 0
    while any(cut):
        choices = [position for position, rest in enumerate(cut) if rest and position <= begun]
        position = rng.choice(choices)
        begun = max(begun, position + 1)
        events.append(cut[position].pop(0))
    return [*events, CALLED]


@pytest.mark.parametrize("seed", range(200))
def test_any_order_of_pieces_gives_the_whole_message(seed: int) -> None:
    events = random_answer(random.Random(seed))
    expected = json.loads(anthropic_writing.whole(REQUEST, gathered(events)))
    message = message_of(read(b"".join(pieces(events))))
    assert message["content"] == expected["content"]


@pytest.mark.parametrize("arguments", ['{"a":', "[]", "null", '"text"', "{}{}"])
def test_arguments_that_are_no_object_are_nonsense(arguments: str) -> None:
    with pytest.raises(ProviderNonsense, match="not a JSON object"):
        whole(ToolUse("a", "f", arguments), ended=CALLED)
    with pytest.raises(ProviderNonsense, match="not a JSON object"):
        pieces([Begun(), ToolBegun(0, "a", "f"), ToolDelta(0, arguments), CALLED])


def test_a_call_cut_off_by_the_token_limit_says_so() -> None:
    cut = Ended("length", "length")
    assert whole(ToolUse("a", "f", '{"ci'), ended=cut)["content"][0]["input"] == {}
    assert whole(ToolUse("a", "f", '{"ci'), ended=cut)["stop_reason"] == "max_tokens"
    events = read(b"".join(pieces([Begun(), ToolBegun(0, "a", "f"), ToolDelta(0, '{"ci'), cut])))
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_a_call_that_goes_on_behind_its_end_is_nonsense() -> None:
    writer = anthropic_messages.stream_writer(REQUEST)
    for event in (ToolBegun(0, "a", "f"), ToolDelta(0, "{}"), ToolBegun(1, "b", "g")):
        assert writer.write(event)
    assert writer.write(ToolDelta(0, "\n")) == b""
    with pytest.raises(ProviderNonsense):
        writer.write(ToolDelta(0, "x"))


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_writing, "_MAX_KEPT_BYTES", 10)
    writer = anthropic_messages.stream_writer(REQUEST)
    writer.write(ToolBegun(0, "a", "f"))
    writer.write(ToolBegun(1, "b", "g"))
    writer.write(ToolDelta(1, '{"a":1'))
    with pytest.raises(ProviderNonsense, match="longer than 10 bytes"):
        writer.write(ToolDelta(1, "67890"))


def test_what_waited_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_writing, "_MAX_KEPT_BYTES", 10)
    message = streamed(ToolBegun(0, "a", "f"), ToolBegun(1, "b", "g"), ToolDelta(1, '{"a":'), ToolDelta(1, "10}"), CALLED)
    assert message["content"][1]["input"] == {"a": 10}


def test_empty_pieces_open_no_blocks() -> None:
    empty = [TextDelta(""), RefusalDelta(""), ReasoningDelta("")]
    message = streamed(*empty, ToolBegun(0, "a", "f"), *empty, ToolDelta(0, ""), ToolDelta(0, "{}"), *empty, CALLED)
    assert [block["type"] for block in message["content"]] == ["tool_use"]
    assert whole(Text(""), Reasoning())["content"] == []


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (Ended("stop", "stop"), "end_turn"),
        (Ended("stop", "STOP"), "end_turn"),
        (Ended("stop", "stop", "END"), "stop_sequence"),
        (Ended("length", "length"), "max_tokens"),
        (Ended("tool_calls", "tool_calls"), "tool_use"),
        (Ended("content_filter", "SAFETY"), "refusal"),
        (Ended("stop", "pause_turn"), "pause_turn"),
        (Ended("length", "model_context_window_exceeded"), "model_context_window_exceeded"),
    ],
)
def test_stop_reasons(ended: Ended, reason: str) -> None:
    for message in (whole(Text("x"), ended=ended), streamed(TextDelta("x"), ended)):
        assert message["stop_reason"] == reason
        assert message["stop_sequence"] == (ended.stop_sequence or None)


def test_a_refusal_is_text_and_a_stop_reason() -> None:
    for message in (whole(refusal="I will not."), streamed(RefusalDelta("I will"), RefusalDelta(" not."))):
        assert message["content"] == [{"type": "text", "text": "I will not."}]
        assert message["stop_reason"] == "refusal"


def test_without_a_vendors_count_we_estimate() -> None:
    for message in (whole(Text("ü" * 4)), streamed(TextDelta("üü"), TextDelta("üü"))):
        assert message["usage"]["input_tokens"] == REQUEST.estimated_input_tokens
        assert message["usage"]["output_tokens"] == 2


def test_ids() -> None:
    def id_of(vendors: str) -> str:
        return json.loads(anthropic_writing.whole(REQUEST, Result([], STOP, vendors)))["id"]

    assert id_of("msg_01X") == "msg_01X"
    assert id_of("chatcmpl-1:2") == "msg_chatcmpl-1_2"
    assert id_of("").startswith("msg_")
    assert id_of("") != id_of("")
    assert whole()["model"] == "vendor-model"
    assert json.loads(anthropic_writing.whole(REQUEST, Result([], STOP)))["model"] == "alias"


@pytest.mark.parametrize("call_id", ["toolu_01-x", "get_weather:0", "functions.f:1", "é/☃", "call64_", "call64_!", "a b"])
def test_a_tool_calls_id_comes_back_as_the_vendor_wrote_it(call_id: str) -> None:
    shown = shown_id(call_id)
    assert shown.replace("_", "").replace("-", "").isalnum()
    assert shown.isascii()
    assert vendors_id(shown) == call_id
    assert streamed(ToolBegun(0, call_id, "f"), CALLED)["content"][0]["id"] == shown


@pytest.mark.parametrize("native", ["end_turn", "pause_turn", "stop"])
def test_an_answer_with_calls_ends_in_them_whatever_the_vendor_calls_its_end(native: str) -> None:
    """OpenRouter gives Anthropic's own word beside OpenAI's; an agent runs tools for one of them only."""
    ended = Ended("tool_calls", native)
    assert json.loads(anthropic_messages.whole(REQUEST, Result([ToolUse("c", "f", "{}")], ended)))["stop_reason"] == "tool_use"
    (delta,) = [event for event in read(b"".join(pieces([Begun(), ToolBegun(0, "c", "f"), ended]))) if event["type"] == "message_delta"]
    assert delta["delta"]["stop_reason"] == "tool_use"
