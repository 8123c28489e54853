"""Anthropic's real answers, read from the recordings, and its official SDK as the judge of what we send and pass on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from core import errors
from core.chat import ChatRequest
from core.conversation import Conversation, Reasoning, Text, ToolUse
from core.events import Result
from core.plain import plain_request, result_of, result_of_stream
from core.usage import Usage, tier_of
from gateway.doors import anthropic_messages
from providers.adapters.anthropic import Anthropic
from providers.adapters.anthropic_wire import BUDGETS
from tests import replay
from tests.adapters.cast import KEY, SECRET, model, provider

ABSENT = [pytest.param(None, marks=pytest.mark.skip(replay.ABSENT))]
ALL = [pytest.param(exchange, id=exchange["id"]) for exchange in replay.exchanges("anthropic")] or ABSENT
OF_MESSAGES = [
    param for param in ALL if param.values[0] and param.values[0]["request"]["path"].partition("?")[0].endswith("/messages")
] or ABSENT
ANSWERS = [param for param in OF_MESSAGES if param.values[0] and param.values[0]["response"]["status"] == 200] or ABSENT
ASKED = [param for param in OF_MESSAGES if param.values[0] and (param.values[0]["request"]["body"] or {}).get("messages")] or ABSENT
ERRORS = {
    "anthropic-error-400-1012e0": errors.ProviderRejectedOurKey,  # credit
    "anthropic-error-400-4a3ecf": errors.ProviderRefused,
    "anthropic-error-400-credit-r788c3": errors.ProviderRejectedOurKey,
    "anthropic-error-400-max-tokens-missing-r14c76": errors.ProviderRefused,
    "anthropic-error-400-temperature-2026-10-21-r81275": errors.ProviderRefused,
    "anthropic-error-403-r0c730": errors.ProviderRejectedOurKey,
    "anthropic-error-404-1b537a": errors.ProviderLacksModel,
    "anthropic-error-404-59833e": errors.ProviderLacksModel,
    "anthropic-error-413-rea99b": errors.ContextTooLong,
    "anthropic-error-500-r1ea0b": errors.ProviderFault,
    "anthropic-error-529-rf79ac": errors.ProviderFault,
    "anthropic-error-context-a4e791": errors.ContextTooLong,
    "anthropic-mid-stream-overloaded-r4b578": errors.ProviderFault,
}


def adapter() -> Anthropic:
    return Anthropic(provider("anthropic", "https://vendor.test"))


def asked(body: dict[str, Any]) -> ChatRequest:
    return anthropic_messages.parse(json.dumps({"max_tokens": 1, **body, "model": "alias"}).encode())


def client(streams: bool) -> ChatRequest:
    return asked({"messages": [{"role": "user", "content": "x"}], "stream": streams})


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)] if size else [body]


class Told:
    """An answer as a simple client reads it, by other code than the product's: lines, `json`, plain adding up."""

    def __init__(self, response: dict[str, Any]) -> None:
        self.text = self.thought = self.signature = self.stop = ""
        self.tools: dict[int, list[str]] = {}
        self.usage: dict[str, Any] = {}
        if "lines" not in response:
            self._message(response["body"])
            return
        for line in response["lines"]:
            if line.startswith("data:"):
                self._event(json.loads(line[5:]))

    def _message(self, message: dict[str, Any]) -> None:
        for index, block in enumerate(message["content"]):
            self._begin(index, block)
            if block["type"] == "tool_use":
                self.tools[index][2] = json.dumps(block["input"])
        self.stop, self.usage = message["stop_reason"] or "", message["usage"]

    def _begin(self, index: int, block: dict[str, Any]) -> None:
        self.text += block.get("text") or ""
        self.thought += block.get("thinking") or ""
        self.signature += block.get("signature") or ""
        if block["type"] == "tool_use":
            self.tools[index] = [block["id"], block["name"], ""]

    def _event(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "message_start":
                self._message(event["message"])
            case "content_block_start":
                self._begin(event["index"], event["content_block"])
            case "content_block_delta":
                delta = event["delta"]
                self.text += delta.get("text", "")
                self.thought += delta.get("thinking", "")
                self.signature += delta.get("signature", "")
                if event["index"] in self.tools:
                    self.tools[event["index"]][2] += delta.get("partial_json", "")
            case "message_delta":
                self.stop = event["delta"]["stop_reason"]
                self.usage = {**self.usage, **event["usage"]}

    def calls(self) -> list[tuple[str, str, Any]]:
        return [(call_id, name, json.loads(arguments or "{}")) for call_id, name, arguments in self.tools.values()]

    def bucket(self) -> Usage:
        hour = (self.usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens", 0)
        thought = (self.usage.get("output_tokens_details") or {}).get("thinking_tokens", 0)
        return Usage(
            input=self.usage["input_tokens"],
            cached_input=self.usage.get("cache_read_input_tokens") or 0,
            cache_write=(self.usage.get("cache_creation_input_tokens") or 0) - hour,
            cache_write_1h=hour,
            output=self.usage["output_tokens"] - thought,
            reasoning=thought,
            service_tier=tier_of(self.usage.get("service_tier")),
        )

    def ended(self) -> str:
        ways = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
        return ways[self.stop]


def test_the_recordings_are_here() -> None:
    replay.require()
    assert len(ALL) == 35
    failures = {param.values[0]["id"] for param in ALL if param.values[0]["response"]["status"] != 200}
    assert failures == ERRORS.keys() - {"anthropic-mid-stream-overloaded-r4b578"}


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("exchange", ANSWERS)
def test_an_answer_reads_as_it_was_and_passes_as_it_came(exchange: dict[str, Any], cut: int) -> None:
    response, body = exchange["response"], replay.body_of(exchange["response"])
    streams = "lines" in response
    if exchange["id"] in ERRORS:
        check_break(exchange, body, cut)
        return
    told = Told(response)
    if streams:
        reader = adapter().stream_reader(client(True))
        passed = b"".join([reader.feed(piece) for piece in pieces(body, cut)]) + reader.tail
        assert reader.done
        assert passed == body.rstrip(b"\n") + b"\n\n"
    else:
        reader = adapter().read_answer(body, client(False))
        assert reader.body is body
    assert reader.usage == told.bucket()
    assert reader.finish_reason == told.ended()
    assert reader.output_bytes >= len(told.text.encode()) + len(told.thought.encode())


def check_break(exchange: dict[str, Any], body: bytes, cut: int) -> None:
    for reader in (adapter().stream_reader(client(True)), adapter().stream_reader(plain_request("a", Conversation([]), stream=True))):
        with pytest.raises(ERRORS[exchange["id"]]):
            b"".join(map(reader.feed, pieces(body, cut)))
        assert not reader.done
        assert reader.usage is None


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("exchange", [param for param in ANSWERS if param.values[0] is None or param.values[0]["id"] not in ERRORS])
def test_an_answer_in_our_own_words_says_the_same(exchange: dict[str, Any], cut: int) -> None:
    response, body = exchange["response"], replay.body_of(exchange["response"])
    result, told = translated(body, "lines" in response, cut), Told(response)
    assert "".join(part.text for part in result.parts if isinstance(part, Text)) == told.text
    assert "".join(part.text for part in result.parts if isinstance(part, Reasoning)) == told.thought
    assert "".join(part.signature for part in result.parts if isinstance(part, Reasoning)) == told.signature
    calls = [(part.id, part.name, json.loads(part.arguments)) for part in result.parts if isinstance(part, ToolUse)]
    assert calls == told.calls()
    assert result.usage == told.bucket()
    assert (result.ended.reason, result.ended.native) == (told.ended(), told.stop)
    assert result.id.startswith("msg_")
    assert bool(result.refusal) == (told.stop == "refusal")


def translated(body: bytes, streams: bool, cut: int) -> Result:
    request = plain_request("alias", Conversation([]), stream=streams)
    if not streams:
        return result_of(adapter().read_answer(body, request).body)
    reader = adapter().stream_reader(request)
    said = b"".join([reader.feed(piece) for piece in pieces(body, cut)])
    return result_of_stream(said + reader.tail)


@pytest.mark.parametrize("exchange", [param for param in ALL if param.values[0] is None or param.values[0]["response"]["status"] != 200])
def test_an_error_is_what_it_means(exchange: dict[str, Any]) -> None:
    response = exchange["response"]
    headers = {name.lower(): value for name, value in response["headers"].items()}
    error = adapter().read_error(response["status"], headers, replay.body_of(response))
    assert type(error) is ERRORS[exchange["id"]]
    assert "req_" not in error.message
    assert response["body"]["error"]["message"] in (error.detail or "")


def test_counts_and_models() -> None:
    replay.require()
    by_id = {exchange["id"]: replay.body_of(exchange["response"]) for exchange in replay.exchanges("anthropic")}
    assert adapter().read_count(by_id["anthropic-count-tokens-df8436"]) == 669
    models = adapter().read_models(by_id["anthropic-models-9bd578"])
    assert len(models) == 10
    assert "claude-sonnet-4-5-20250929" in models


# What we send ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("exchange", ASKED)
def test_what_passes_through_is_what_was_recorded(exchange: dict[str, Any]) -> None:
    recorded = exchange["request"]["body"]
    call = adapter().chat_call(asked(recorded), model(recorded["model"]), SECRET)
    assert call.body is not None
    assert replay.differences({"max_tokens": 1, **recorded}, json.loads(call.body)) == []


@pytest.mark.parametrize("exchange", ASKED)
def test_what_is_translated_there_and_back_differs_as_intended(exchange: dict[str, Any]) -> None:
    recorded = {"max_tokens": 1, **exchange["request"]["body"]}
    told = asked(recorded).conversation()
    target = model(recorded["model"])
    call = adapter().chat_call(plain_request("alias", told, stream=bool(recorded.get("stream"))), target, SECRET)
    assert call.body is not None
    assert replay.differences(as_intended(recorded), json.loads(call.body)) == []


def as_intended(body: dict[str, Any]) -> dict[str, Any]:
    """The body as Anthropic's client sent it, with what our words say differently, as intended:

    messages[*].content     a lone text is a block, which the vendor takes for the same
    system                  a lone block of text is the text
    temperature             left out while the model thinks: it takes 1 alone, which is what it does when nothing is said
    output_config.effort    an effort is a wish to think, with the budget that stands for it
    tools                   none are not mentioned, nor is an empty description
    cache_control, display  hints, which change the cost and the look: left out with a report
    """
    body = without_hints(body)
    for message in body["messages"]:
        message["content"] = blocks(message["content"])
        for block in message["content"]:
            if block["type"] == "tool_result":
                block["content"] = blocks(block["content"])
    system = body.get("system")
    if isinstance(system, list) and len(system) == 1:
        body["system"] = system[0]["text"]
    if effort := body.pop("output_config", {}).get("effort"):
        assert effort == "xhigh"
        body["thinking"] = {"type": "enabled", "budget_tokens": min(BUDGETS[effort], body["max_tokens"] - 1024)}
    if (body.get("thinking") or {}).get("type") == "enabled":
        body.pop("temperature", None)
    if body.get("tools") == []:
        del body["tools"]
    for tool in body.get("tools", []):
        if tool.get("description") == "":
            del tool["description"]
    return body


def without_hints(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_hints(inner) for name, inner in value.items() if name not in ("cache_control", "display")}
    return [without_hints(inner) for inner in value] if isinstance(value, list) else value


def blocks(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


# The official SDK -----------------------------------------------------------------------------------------------------
class Upstream:
    """A server on this machine that gives one prepared answer and keeps what it was asked."""

    def __init__(self) -> None:
        self.body = b""
        self.content_type = "application/json"
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["content-length"]))
                upstream.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(sent)))
                self.send_response(200)
                self.send_header("content-type", upstream.content_type)
                self.send_header("content-length", str(len(upstream.body)))
                self.end_headers()
                self.wfile.write(upstream.body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join(10)
    made.server.server_close()


@pytest.fixture(scope="module")
def sdk(upstream: Upstream) -> Iterator[Any]:
    import anthropic

    with anthropic.Anthropic(api_key=KEY, base_url=upstream.address, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("exchange", [param for param in ANSWERS if param.values[0] is None or param.values[0]["id"] not in ERRORS])
def test_the_official_sdk_reads_what_we_pass_on(exchange: dict[str, Any], upstream: Upstream, sdk: Any) -> None:
    response, body = exchange["response"], replay.body_of(exchange["response"])
    told = Told(response)
    question: dict[str, Any] = {"model": "alias", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    if "lines" in response:
        reader = adapter().stream_reader(client(True))
        upstream.body, upstream.content_type = (
            b"".join([reader.feed(piece) for piece in pieces(body, 7)]) + reader.tail,
            "text/event-stream",
        )
        with sdk.messages.stream(**question) as stream:
            message = stream.get_final_message()
    else:
        upstream.body, upstream.content_type = adapter().read_answer(body, client(False)).body, "application/json"
        message = sdk.messages.create(**question)
    assert "".join(block.text for block in message.content if block.type == "text") == told.text
    assert "".join(block.thinking for block in message.content if block.type == "thinking") == told.thought
    assert [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"] == told.calls()
    assert (message.stop_reason, message.usage.output_tokens) == (told.stop, told.usage["output_tokens"])


# The SDK dropped these arguments with its API version; they travel beside its own.
SAMPLING = ("temperature", "top_p", "top_k")
# header: (the SDK's, ours), where both send it and mean to differ.
HEADERS = {
    "anthropic-version": ("2026-10-21", "2023-06-01"),  # the last one that takes a temperature
    "authorization": (f"Bearer {KEY}", None),  # the version before knows it, imitators of Anthropic do not
    "x-api-key": (None, KEY),
}


@pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")  # the recordings' own
@pytest.mark.parametrize("exchange", ASKED)
def test_what_we_send_is_what_the_official_sdk_sends(exchange: dict[str, Any], upstream: Upstream, sdk: Any) -> None:
    recorded = {"max_tokens": 1, **exchange["request"]["body"]}
    upstream.body, upstream.content_type = b'event: message_stop\ndata: {"type":"message_stop"}\n\n', "text/event-stream"
    sampling = {name: recorded[name] for name in SAMPLING if name in recorded}
    rest = {name: value for name, value in recorded.items() if name not in (*SAMPLING, "stream")}
    upstream.asked.clear()
    sdk.messages.create(**rest, stream=True, extra_body=sampling).close()
    path, headers, sent = upstream.asked[0]
    told = asked(recorded).conversation()
    call = adapter().chat_call(plain_request("alias", told, stream=True), model(recorded["model"]), SECRET)
    assert call.url.endswith(path)
    assert call.body is not None
    assert replay.differences(as_intended(sent), json.loads(call.body)) == []
    ours = {name.lower(): value for name, value in call.headers.items()}
    assert {name: (headers.get(name), ours.get(name)) for name in HEADERS} == HEADERS
    assert headers["content-type"] == ours["content-type"]
