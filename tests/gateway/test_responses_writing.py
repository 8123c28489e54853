"""Answers as OpenAI's responses: judged by the official SDK's own types, and by a second reading of the events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from core.conversation import Reasoning, Text, ToolUse
from core.errors import CallerLimited, ProviderFault
from core.events import Begun, Counted, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta, ToolBegun, ToolDelta, told
from core.usage import Usage
from gateway.doors import responses

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = Usage(input=3, cached_input=2, cache_write=1, output=4, reasoning=1)
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def request(**changes: Any) -> Any:
    return responses.parse(json.dumps({"model": "m", "input": "hi", **changes}).encode())


def events_of(body: bytes) -> list[dict[str, Any]]:
    """Each event as a client reads it; its name must be its type."""
    found = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == "event: " + event["type"]
        EVENT.validate_python(event)
        found.append(event)
    return found


def streamed(*said: Any, usage: Usage | None = USAGE, ended: Ended | None = None, **changes: Any) -> list[dict[str, Any]]:
    """All events of a stream, the tail's included; numbered without a gap."""
    writer = responses.stream_writer(request(stream=True, **changes))
    body = writer.begin(Begun("chatcmpl-77", "vendor-m", 7)) + b"".join(map(writer.write, said))
    events = events_of(body + writer.end(ended or Ended("stop"), usage) + writer.tail())
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def rebuilt(events: list[dict[str, Any]]) -> list[Any]:
    """What a client gathers from deltas alone: (type, text) of each item by its place."""
    found: dict[int, list[str]] = {}
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(found)
            found[event["output_index"]] = [event["item"]["type"], ""]
        elif event["type"].endswith(".delta"):
            found[event["output_index"]][1] += event["delta"]
    return [tuple(item) for item in found.values()]


def test_text() -> None:
    events = streamed(TextDelta('he"l'), TextDelta(""), TextDelta("lo é"))
    assert kinds(events) == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    response = Response.model_validate(events[-1]["response"])
    assert (response.output_text, response.status, response.model, response.created_at) == ('he"llo é', "completed", "vendor-m", 7)
    assert events[0]["response"]["id"] == response.id == "resp_77"
    assert (events[0]["response"]["status"], events[0]["response"]["output"], events[0]["response"]["usage"]) == ("in_progress", [], None)
    assert events[6]["text"] == 'he"llo é'
    assert {event["item_id"] for event in events if "item_id" in event} == {response.output[0].id}


def test_usage_and_what_is_repeated_of_the_request() -> None:
    (*_, last) = streamed(
        TextDelta("x"), instructions="be brief", tools=[FUNCTION], temperature=0.5, metadata={"a": "b"}, tool_choice="required"
    )
    response = Response.model_validate(last["response"])
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (6, 5, 11)
    assert (response.usage.input_tokens_details.cached_tokens, response.usage.output_tokens_details.reasoning_tokens) == (2, 1)
    assert (response.instructions, response.temperature, response.metadata, response.tool_choice) == (
        "be brief",
        0.5,
        {"a": "b"},
        "required",
    )
    assert last["response"]["tools"] == [FUNCTION]
    assert (response.store, response.background, response.error, response.previous_response_id) == (False, False, None, None)
    assert streamed(TextDelta("x"), usage=None)[-1]["response"]["usage"] is None


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_how_it_ended(reason: str, status: str, why: str | None) -> None:
    (*_, done, last) = streamed(TextDelta("x"), ended=Ended(reason))
    assert last["type"] == "response." + status
    assert last["response"]["incomplete_details"] == ({"reason": why} if why else None)
    assert done["item"]["status"] == last["response"]["output"][0]["status"] == status


def test_tools_may_grow_side_by_side() -> None:
    events = streamed(
        TextDelta("look"),
        ToolBegun(0, "call_a", "f"),
        ToolDelta(0, '{"a"'),
        ToolBegun(1, "call_b", "g"),
        ToolDelta(1, "{}"),
        ToolDelta(0, ":1}"),
        ToolBegun(2, "call_c", "h"),
        ended=Ended("tool_calls"),
    )
    calls = events[-1]["response"]["output"][1:]
    assert [(call["call_id"], call["name"], call["arguments"]) for call in calls] == [
        ("call_a", "f", '{"a":1}'),
        ("call_b", "g", "{}"),
        ("call_c", "h", "{}"),
    ]
    assert rebuilt(events) == [("message", "look"), ("function_call", '{"a":1}'), ("function_call", "{}"), ("function_call", "{}")]
    done = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [event["arguments"] for event in done] == ['{"a":1}', "{}", "{}"]
    assert len({item["id"] for item in events[-1]["response"]["output"]}) == 4


def test_a_call_that_was_cut_off_stays_cut_off() -> None:
    events = streamed(ToolBegun(0, "call_a", "f"), ToolDelta(0, '{"a"'), ended=Ended("length"))
    assert [(item["arguments"], item["status"]) for item in events[-1]["response"]["output"]] == [('{"a"', "incomplete")]
    events = streamed(ToolBegun(0, "call_a", "f"), ended=Ended("length"))
    assert [(item["arguments"], item["status"]) for item in events[-1]["response"]["output"]] == [("", "incomplete")]


def test_thoughts_and_their_seals() -> None:
    events = streamed(
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta(signature="SEAL"),
        ReasoningDelta(redacted="DATA"),
        ReasoningDelta("more"),
        TextDelta("so"),
        ToolBegun(0, "call_a", "f", "TOOLSEAL"),
    )
    output = events[-1]["response"]["output"]
    assert [(item["type"], item.get("encrypted_content"), item.get("summary")) for item in output] == [
        ("reasoning", "signature:SEAL", [{"type": "summary_text", "text": "hm"}]),
        ("reasoning", "redacted:DATA", []),
        ("reasoning", None, [{"type": "summary_text", "text": "more"}]),
        ("message", None, None),
        ("reasoning", "tool:TOOLSEAL", []),
        ("function_call", None, None),
    ]
    first = [event for event in events if event.get("output_index") == 0]
    assert kinds(first) == [
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
    ]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == output


def test_a_hidden_thought_is_one_of_its_own() -> None:
    output = streamed(ReasoningDelta("hm"), ReasoningDelta(redacted="DATA"))[-1]["response"]["output"]
    assert [(len(item["summary"]), item["encrypted_content"]) for item in output] == [(1, None), (0, "redacted:DATA")]


def test_what_was_not_said_is_repeated_as_openai_would() -> None:
    last = streamed(TextDelta("x"), tools=None, metadata=None, parallel_tool_calls=None, text=None)[-1]["response"]
    assert (last["tools"], last["metadata"], last["parallel_tool_calls"], last["text"]) == ([], {}, True, {"format": {"type": "text"}})


def test_a_refusal() -> None:
    events = streamed(RefusalDelta("I "), RefusalDelta("won't"))
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "I won't"}]
    assert [event["refusal"] for event in events if event["type"] == "response.refusal.done"] == ["I won't"]


RESULT = Result(
    [Reasoning("hm", "SEAL"), Reasoning(redacted="DATA"), Text("one"), ToolUse("call_a", "f", '{"a":1}', "TS"), ToolUse("call_b", "g")],
    Ended("tool_calls"),
    "msg_9",
    "vendor-m",
    7,
    usage=USAGE,
)


def test_a_whole_answer_is_what_the_stream_of_it_ends_with() -> None:
    whole = json.loads(responses.whole(request(), RESULT))
    Response.model_validate(whole)
    said = [event for event in told(RESULT) if not isinstance(event, (Begun, Ended, Counted))]
    last = streamed(*said, ended=RESULT.ended)[-1]["response"]
    assert whole["id"] == "resp_9"
    assert {**whole, "id": 0, "completed_at": 0, "output": []} == {**last, "id": 0, "completed_at": 0, "output": []}
    assert [{**item, "id": 0} for item in whole["output"]] == [{**item, "id": 0} for item in last["output"]]


def test_nothing_but_a_name_of_the_vendor_is_needed() -> None:
    whole = json.loads(responses.whole(request(), Result([Text("x")], Ended("stop"))))
    Response.model_validate(whole)
    assert len(whole["id"]) == len("resp_") + 32
    assert (whole["model"], whole["usage"]) == ("m", None)
    assert whole["created_at"] > 1_700_000_000


def test_what_was_answered_can_be_asked_again() -> None:
    """The second turn: clients send the output back as it was."""
    output = json.loads(responses.whole(request(), RESULT))["output"]
    results = [{"type": "function_call_output", "call_id": call, "output": "x"} for call in ("call_a", "call_b")]
    found = responses.conversation(request(input=[{"role": "user", "content": "hi"}, *output, *results]).fields)
    assert [message.role for message in found.messages] == ["user", "assistant", "tool", "tool"]
    again = found.messages[1].parts
    assert again[:-1] == RESULT.parts[:-1]
    assert again[-1] == ToolUse("call_b", "g", "{}")


@pytest.mark.parametrize("error", [ProviderFault("The provider failed."), CallerLimited("Too many.", param="x")])
def test_a_stream_that_failed(error: Any) -> None:
    failed, last = events_of(responses.stream_error(error))
    assert failed["type"] == "response.failed"
    code = "server_error" if error.http_status == 502 else "rate_limit_exceeded"
    assert failed["response"]["error"] == {"code": code, "message": error.message}
    assert (last["type"], last["code"], last["message"], last["param"]) == ("error", error.code, error.message, error.param)
    assert last["error"] == {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def test_an_error_body_is_openais() -> None:
    assert json.loads(responses.error_body(ProviderFault("no")))["error"]["message"] == "no"
