"""Answers in our own words as OpenAI's responses: items that open, grow and close, numbered as they come.

Text and thoughts follow each other; tool calls may grow side by side, so they stay open until the end. What the model
thought is shown as a summary, which is where clients look; `responses_reading` says how its seal travels.
Source: OpenAI's API reference (responses, responses-streaming); what `openai.types.responses` requires.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

import msgspec

from core.chat import ChatRequest
from core.clock import SystemClock
from core.events import Begun, Content, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta, ToolBegun, ToolDelta, told
from core.usage import Usage
from gateway.doors.responses_reading import REDACTED, SIGNATURE, TOOL

wall = SystemClock.wall
_encode = msgspec.json.Encoder().encode
_TEXT, _REFUSAL = "output_text", "refusal"
_DELTAS = {_TEXT: _TEXT, _REFUSAL: _REFUSAL, "reasoning": "reasoning_summary_text", "function_call": "function_call_arguments"}
_PREFIX = re.compile(r"[a-z]+[-_]")
# What a response repeats of its request, and what OpenAI says where the client said nothing.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


class _Item:
    """One item of the output while it grows. `finished` is its last form, None while it is open."""

    def __init__(self, index: int, id_: str, kind: str, call: ToolBegun | None = None) -> None:
        self.index = index
        self.id = id_
        self.kind = kind
        self.call = call
        self.said: list[str] = []
        self.seal: str | None = None
        self.finished: dict[str, Any] | None = None
        self.before = b""  # of each delta: everything up to its number

    def form(self, status: str) -> dict[str, Any]:
        """The item as JSON; empty where it has only begun."""
        text = "".join(self.said)
        done = status != "in_progress"
        if self.kind == "reasoning":
            summary = [{"type": "summary_text", "text": text}] if done and text else []
            return {"id": self.id, "type": "reasoning", "summary": summary, "encrypted_content": self.seal}
        if self.call is not None:
            arguments = "{}" if status == "completed" and not text else text
            named = {"call_id": self.call.id, "name": self.call.name}
            return {"id": self.id, "type": "function_call", "status": status, **named, "arguments": arguments}
        content = [_part(self.kind, text)] if done else []
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == _REFUSAL:
        return {"type": _REFUSAL, "refusal": text}
    return {"type": _TEXT, "annotations": [], "logprobs": [], "text": text}


class ResponseWriter:
    """A `core.chat.StreamWriter`."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._base: dict[str, Any] = {}
        self._id = ""
        self._number = 0
        self._items: list[_Item] = []
        self._open: _Item | None = None  # text or thought
        self._calls: dict[int, _Item] = {}
        self._tail = b""
        self.last: dict[str, Any] = {}

    def begin(self, begun: Begun) -> bytes:
        self._id = _PREFIX.sub("", begun.id, count=1) or secrets.token_hex(16)
        self._base = {
            "id": "resp_" + self._id,
            "object": "response",
            "created_at": begun.created or int(wall()),
            "background": False,
            "error": None,
            "model": begun.model or self._request.model,
            "previous_response_id": None,
            "store": False,
            **self._repeated(),
        }
        response = self._response("in_progress", None, None)
        return self._event("response.created", response=response) + self._event("response.in_progress", response=response)

    def write(self, event: Content) -> bytes:
        match event:
            case TextDelta():
                return self._say(_TEXT, event.text)
            case ToolDelta():
                return self._delta(self._calls[event.position], event.arguments)
            case ReasoningDelta():
                return self._think(event)
            case RefusalDelta():
                return self._say(_REFUSAL, event.text)
            case ToolBegun():
                return self._call(event)

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(ended.reason)
        status = "incomplete" if why else "completed"
        closing = self._close(status) + b"".join(self._finish(item, status) for item in self._calls.values())
        self.last = self._response(status, why, usage)
        self._tail = self._event("response." + status, response=self.last)
        return closing

    def tail(self) -> bytes:
        return self._tail

    def _repeated(self) -> dict[str, Any]:
        fields = self._request.fields
        given = {name: fields[name] for name in _REPEATED if name in fields and bytes(fields[name]) != b"null"}
        return {**_REPEATED, **given}

    def _response(self, status: str, why: str | None, usage: Usage | None) -> dict[str, Any]:
        return {
            **self._base,
            "status": status,
            "completed_at": None if status == "in_progress" else int(wall()),
            "incomplete_details": {"reason": why} if why else None,
            "output": [item.finished for item in self._items if item.finished is not None],
            "usage": _usage(usage) if usage is not None else None,
        }

    def _event(self, kind: str, **values: Any) -> bytes:
        data = _encode({"type": kind, "sequence_number": self._number, **values})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def _say(self, kind: str, text: str) -> bytes:
        if not text:
            return b""
        item = self._open
        if item is not None and item.kind == kind:
            return self._delta(item, text)
        opening = self._close("completed")
        item = self._open = self._item("msg", kind)
        opening += self._event("response.output_item.added", output_index=item.index, item=item.form("in_progress"))
        opening += self._event("response.content_part.added", **_place(item), part=_part(kind, ""))
        return opening + self._delta(item, text)

    def _think(self, event: ReasoningDelta) -> bytes:
        written = b""
        item = self._open
        if item is None or item.kind != "reasoning" or event.redacted:
            written += self._close("completed")
            item = self._open = self._item("rs", "reasoning")
            written += self._event("response.output_item.added", output_index=item.index, item=item.form("in_progress"))
        if event.text:
            if not item.said:
                written += self._event("response.reasoning_summary_part.added", **_place(item), part={"type": "summary_text", "text": ""})
            written += self._delta(item, event.text)
        if event.signature or event.redacted:
            item.seal = REDACTED + event.redacted if event.redacted else SIGNATURE + event.signature
            written += self._close("completed")
        return written

    def _call(self, event: ToolBegun) -> bytes:
        written = self._close("completed")
        if event.signature:
            sealed = self._item("rs", "reasoning")
            sealed.seal = TOOL + event.signature
            written += self._event("response.output_item.added", output_index=sealed.index, item=sealed.form("in_progress"))
            written += self._finish(sealed, "completed")
        item = self._calls[event.position] = self._item("fc", "function_call", event)
        return written + self._event("response.output_item.added", output_index=item.index, item=item.form("in_progress"))

    def _item(self, prefix: str, kind: str, call: ToolBegun | None = None) -> _Item:
        item = _Item(len(self._items), f"{prefix}_{self._id}{len(self._items):03d}", kind, call)
        event = f"response.{_DELTAS[kind]}.delta"
        extra: dict[str, Any] = {"logprobs": []} if kind == _TEXT else {}
        item.before = f"event: {event}\ndata: ".encode() + _encode({"type": event, **_place(item), **extra})[:-1] + b',"sequence_number":'
        self._items.append(item)
        return item

    def _delta(self, item: _Item, text: str) -> bytes:
        if not text:
            return b""
        item.said.append(text)
        number = self._number
        self._number += 1
        return item.before + b'%d,"delta":' % number + _encode(text) + b"}\n\n"

    def _close(self, status: str) -> bytes:
        """Ends the text or thought that is open, if one is."""
        item, self._open = self._open, None
        return self._finish(item, status) if item is not None else b""

    def _finish(self, item: _Item, status: str) -> bytes:
        item.finished = item.form(status)
        text = "".join(item.said)
        written = b""
        if item.call is not None:
            arguments = item.finished["arguments"]
            if not text:
                written += self._delta(item, arguments)
            written += self._event("response.function_call_arguments.done", **_place(item), arguments=arguments)
        elif item.kind == "reasoning":
            if text:
                written += self._event("response.reasoning_summary_text.done", **_place(item), text=text)
                written += self._event("response.reasoning_summary_part.done", **_place(item), part=item.finished["summary"][0])
        else:
            part = item.finished["content"][0]
            said = {"refusal": text} if item.kind == _REFUSAL else {"text": text, "logprobs": []}
            written += self._event(f"response.{item.kind}.done", **_place(item), **said)
            written += self._event("response.content_part.done", **_place(item), part=part)
        return written + self._event("response.output_item.done", output_index=item.index, item=item.finished)


def _place(item: _Item) -> dict[str, Any]:
    """Where in the response an event belongs."""
    place: dict[str, Any] = {"item_id": item.id, "output_index": item.index}
    if item.kind == "reasoning":
        place["summary_index"] = 0
    elif item.call is None:
        place["content_index"] = 0
    return place


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write + usage.cache_write_1h},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total_tokens,
    }


def whole(request: ChatRequest, result: Result) -> bytes:
    """See `core.chat.Dialect.whole`: what the last event of the same answer's stream holds."""
    writer = ResponseWriter(request)
    begun, *said = told(result)
    assert isinstance(begun, Begun)
    writer.begin(begun)
    for event in said:
        if isinstance(event, Content):
            writer.write(event)
    writer.end(result.ended, result.usage)
    return _encode(writer.last)


def stream_writer(request: ChatRequest) -> ResponseWriter:
    """See `core.chat.Dialect.stream_writer`."""
    return ResponseWriter(request)
