"""What an answer says, read as plainly as a simple client would, and by other code than the product's: vendors' and clients' wires."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from core.usage import Usage
from tests import replay
from tests.adapters.cast import Heard, spoken
from tests.adapters.test_recorded import bucket
from tests.adapters.test_recorded_anthropic import Told
from tests.adapters.test_recorded_dashscope import Said as DashScopeSaid
from tests.adapters.test_recorded_gemini import Said as GeminiSaid
from tests.e2e import wire
from tests.e2e.replay_plan import ANTHROPIC, CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Plan

Call = tuple[str, str, Any]


class Said(NamedTuple):
    """`calls` are (id, name, arguments as a value), "" as id = the vendor gave none. `usage` is None where nothing is told.

    `refusal`: why the model will not answer, "" = it does.
    """

    text: str
    thought: str
    calls: list[Call]
    finish: str
    usage: Usage | None
    refusal: str = ""


def in_recording(plan: Plan) -> Said:
    """The first choice of the recorded answer."""
    exchange = plan.exchange
    if plan.native == "anthropic":
        return _message(exchange["response"])
    body = replay.body_of(exchange["response"])
    if plan.native == "gemini":
        google = GeminiSaid(body)
        calls = [(id_, name, arguments) for id_, (name, arguments) in zip(google.ids, google.calls, strict=True)]
        return Said(google.text, google.thoughts, calls, google.finish, google.usage)
    if plan.native == "dashscope":
        qwen = DashScopeSaid(exchange)
        return Said(qwen.text, "", _calls(qwen.calls), qwen.finish, qwen.usage)
    return _READERS[plan.dialect](body, plan.streams)


def by_client(dialect: str, body: bytes, streams: bool) -> Said:
    """What a client of this dialect was given."""
    return _READERS[dialect](body, streams)


class _FirstChoice(Heard):
    refusal = ""

    def _choice(self, choice: dict[str, Any]) -> None:
        if choice.get("index", 0) == 0:
            self.refusal += (choice.get("delta") or {}).get("refusal") or ""
            super()._choice({"index": 0, **choice})


def _chat(body: bytes, streams: bool) -> Said:
    if streams:
        heard = _FirstChoice(body)
        calls = _calls(heard.tools[key] for key in sorted(heard.tools))
        usage = bucket(heard.usage) if heard.usage else None
        return Said(heard.text, heard.reasoning, calls, heard.finish.get(0, ""), usage, heard.refusal)
    answer = json.loads(body)
    choice = answer["choices"][0]
    message = choice.get("message") or {}
    text, thought = spoken(message)
    calls = _calls({"id": call["id"], **call["function"]} for call in message.get("tool_calls") or [])
    usage = bucket(answer["usage"]) if answer.get("usage") else None
    return Said(text, thought, calls, choice["finish_reason"], usage, message.get("refusal") or "")


def _calls(calls: Iterable[dict[str, Any]]) -> list[Call]:
    return [(call["id"], call["name"], json.loads(call["arguments"] or "{}")) for call in calls]


def _messages(body: bytes, streams: bool) -> Said:
    return _message({"lines": body.decode().split("\n")} if streams else {"body": json.loads(body)})


def _message(response: dict[str, Any]) -> Said:
    """Anthropic's, from a vendor as to a client."""
    told = Told(response)
    whole = [response["body"]] if "body" in response else []
    details = [part.get("stop_details") for part in whole or _deltas(response["lines"])]
    refusal = "".join((found or {}).get("explanation") or "" for found in details)
    return Said(told.text, told.thought, told.calls(), told.ended(), told.bucket(), refusal)


def _deltas(lines: list[str]) -> list[dict[str, Any]]:
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    return [event["delta"] for event in events if event["type"] == "message_delta"]


def _responses(body: bytes, streams: bool) -> Said:
    """Of a stream, its last event holds all of the answer."""
    events = [json.loads(data) for data in wire.events(body.decode())] if streams else []
    answer = events[-1]["response"] if streams else json.loads(body)
    text = thought = refusal = ""
    calls: list[Call] = []
    for item in answer["output"]:
        text += "".join(part.get("text") or "" for part in item.get("content") or [])
        refusal += "".join(part.get("refusal") or "" for part in item.get("content") or [])
        thought += "".join(part["text"] for part in item.get("summary") or [])
        if item["type"] == "function_call":
            calls.append((item["call_id"], item["name"], json.loads(item["arguments"] or "{}")))
    assert not streams or text == "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    reason = (answer.get("incomplete_details") or {}).get("reason")
    finish = {"max_output_tokens": "length", "content_filter": "content_filter", None: "tool_calls" if calls else "stop"}[reason]
    return Said(text, thought, calls, finish, _responses_usage(answer["usage"]) if answer.get("usage") else None, refusal)


def _responses_usage(usage: dict[str, Any]) -> Usage:
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
    thought = (usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0
    return Usage(input=usage["input_tokens"] - cached, cached_input=cached, output=usage["output_tokens"] - thought, reasoning=thought)


def _completion(body: bytes, streams: bool) -> Said:
    answer = json.loads(body)
    return Said(answer["choices"][0]["text"], "", [], answer["choices"][0]["finish_reason"], bucket(answer["usage"]))


def _vectors(body: bytes, streams: bool) -> Said:
    """The vectors stand in for the text."""
    answer = json.loads(body)
    rows = [row["values"] for row in answer["embeddings"]] if "embeddings" in answer else [row["embedding"] for row in answer["data"]]
    usage = answer.get("usage") or answer.get("usageMetadata") or {}
    tokens = usage.get("promptTokenCount") or usage.get("prompt_tokens") or usage.get("total_tokens")
    return Said(json.dumps(rows), "", [], "", Usage(input=tokens) if tokens else None)


_READERS = {
    CHAT: _chat,
    ANTHROPIC: _messages,
    RESPONSES: _responses,
    COMPLETIONS: _completion,
    EMBEDDINGS: _vectors,
}
