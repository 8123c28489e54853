"""What Google answered, read through the adapter and told to an OpenAI client, against a simple reader of Google's own JSON."""

from __future__ import annotations

import base64
import copy
import json
import struct
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from core import errors
from core.chat import ChatRequest, Dialect
from core.config import KeySpec, ProviderSpec
from core.outbound import Guard, GuardedTransport
from core.usage import Usage
from providers.adapters.gemini import Gemini
from tests import replay
from tests.adapters.cast import SECRET, Heard, model, request

CHAT = ("generateContent", "streamGenerateContent")
REASONS = {"STOP": "stop", "SAFETY": "content_filter", "PROHIBITED_CONTENT": "content_filter", "MODEL_ARMOR": "content_filter"}
ERRORS = {
    "gemini-error-403-rd18d3": errors.ProviderRejectedOurKey,
    "gemini-error-404-481a4b": errors.ProviderLacksModel,
    "gemini-error-404-63f34d": errors.ProviderLacksModel,
    "gemini-error-429-retryinfo-42e0e3": errors.ProviderLimited,
    "gemini-mid-stream-error-rabb27": errors.ProviderFault,
    "vertex-error-400-007507": errors.ProviderRefused,
    "vertex-error-400-4834f1": errors.ProviderRefused,
    "vertex-error-context-d8f52d": errors.ContextTooLong,
}


def endpoint(exchange: dict[str, Any]) -> str:
    return str(exchange["request"]["path"].partition("?")[0].rpartition(":")[2])


def found(*endpoints: str, ok: bool = True) -> list[Any]:
    """pytest parameters: the exchanges with these endpoints that went well, or did not."""
    all_of_them = [*replay.exchanges("gemini"), *replay.exchanges("vertex")]
    fitting = [
        exchange for exchange in all_of_them if (exchange["id"] not in ERRORS) is ok and (endpoint(exchange) in endpoints or not endpoints)
    ]
    return [pytest.param(exchange, id=exchange["id"]) for exchange in fitting] or [
        pytest.param(None, marks=pytest.mark.skip(replay.ABSENT))
    ]


def adapter(base_url: str = "https://generativelanguage.googleapis.com") -> Gemini:
    return Gemini(ProviderSpec("provider-1", "main", "gemini", base_url, keys=(KeySpec("key-1", "wxyz", SECRET),)))


class Said:
    """Google's own JSON as a simple client reads it."""

    def __init__(self, body: bytes) -> None:
        lines = body.decode().replace("\r\n", "\n").split("\n")
        events = [json.loads(line[5:]) for line in lines if line.startswith("data:")] or [json.loads(body)]
        self.text = self.thoughts = self.reason = ""
        self.calls: list[tuple[str, Any]] = []
        self.seals: list[str] = []
        self.ids: list[str] = []
        self.counts: dict[str, Any] = {}
        for event in events:
            self.counts = event.get("usageMetadata") or self.counts
            self.reason = (event.get("promptFeedback") or {}).get("blockReason", self.reason)
            for candidate in event.get("candidates", []):
                self.reason = candidate.get("finishReason", self.reason)
                for part in (candidate.get("content") or {}).get("parts", []):
                    self._part(part)

    def _part(self, part: dict[str, Any]) -> None:
        if part.get("thoughtSignature"):
            self.seals.append(part["thoughtSignature"])
        if "functionCall" not in part:
            self.text += "" if part.get("thought") else part.get("text", "")
            self.thoughts += part.get("text", "") if part.get("thought") else ""
            return
        call = part["functionCall"]
        if "name" in call:
            self.calls.append((call["name"], dict(call.get("args") or {})))
            self.ids.append(call.get("id", ""))
        for piece in call.get("partialArgs", []):  # one level deep, and texts alone, is all that was recorded
            name = piece["jsonPath"].removeprefix("$.")
            self.calls[-1][1][name] = self.calls[-1][1].get(name, "") + piece["stringValue"]

    @property
    def finish(self) -> str:
        return "tool_calls" if self.calls and self.reason == "STOP" else REASONS[self.reason]

    @property
    def usage(self) -> Usage | None:
        if "promptTokenCount" not in self.counts:
            return None
        thought = self.counts.get("thoughtsTokenCount", 0)
        made = self.counts["totalTokenCount"] - self.counts["promptTokenCount"] - thought
        return Usage(input=self.counts["promptTokenCount"], output=made, reasoning=thought)


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)] if size else [body]


def check_calls(calls: list[dict[str, Any]], said: Said) -> None:
    """`calls` have `id`, `name` and `arguments` as text."""
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == said.calls
    assert all(call["id"] == theirs if theirs else call["id"].startswith("call_") for call, theirs in zip(calls, said.ids, strict=True))
    assert len({call["id"] for call in calls}) == len(calls)


def seals_of(message: dict[str, Any]) -> list[str]:
    """The seals in a message, or a piece of one, of an OpenAI client."""
    thoughts = [block["signature"] for block in message.get("thinking_blocks") or [] if block.get("signature")]
    calls = [call.get("extra_content") for call in message.get("tool_calls") or []]
    return thoughts + [extra["google"]["thought_signature"] for extra in calls if extra]


def test_the_recordings_are_here() -> None:
    replay.require()
    assert len(replay.exchanges("gemini")) >= 27
    assert len(replay.exchanges("vertex")) >= 5
    assert len(found(*CHAT)) >= 18


@pytest.mark.parametrize("exchange", found("streamGenerateContent"))
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_stream_reads_as_it_was(exchange: dict[str, Any], cut: int) -> None:
    body = replay.body_of(exchange["response"])
    said = Said(body)
    reader = adapter().stream_reader(request({"model": "alias", "stream": True}, wants_usage=True))
    told = b"".join([reader.feed(piece) for piece in pieces(body, cut)])
    assert not reader.done
    heard = Heard(told + reader.finish() + reader.tail)
    assert (heard.text, heard.reasoning, heard.finish) == (said.text, said.thoughts, {0: said.finish})
    check_calls([heard.tools[key] for key in sorted(heard.tools)], said)
    assert [seal for chunk in heard.chunks for choice in chunk["choices"] for seal in seals_of(choice["delta"])] == said.seals
    assert (reader.done, heard.done, reader.finish_reason) == (True, True, said.finish)
    assert reader.usage == said.usage
    assert reader.content_started
    assert reader.output_bytes >= len((said.text + said.thoughts).encode())
    assert said.usage is None or heard.usage["total_tokens"] == said.counts["totalTokenCount"]


@pytest.mark.parametrize("exchange", found("streamGenerateContent"))
def test_a_stream_that_breaks_off_is_no_answer(exchange: dict[str, Any]) -> None:
    body = replay.body_of(exchange["response"])
    cut = body[: body.index(b'"finishReason"')]
    reader = adapter().stream_reader(request({"model": "alias", "stream": True}))
    reader.feed(cut)
    with pytest.raises(errors.ProviderNonsense, match="ended in the middle"):
        reader.finish()


@pytest.mark.parametrize("exchange", found("generateContent"))
def test_a_whole_answer_reads_as_it_was(exchange: dict[str, Any]) -> None:
    body = replay.body_of(exchange["response"])
    said = Said(body)
    answer = adapter().read_answer(body, request())
    (choice,) = json.loads(answer.body)["choices"]
    message = choice["message"]
    assert (message["content"] or "", message.get("reasoning_content") or "") == (said.text, said.thoughts)
    check_calls([{"id": call["id"], **call["function"]} for call in message.get("tool_calls") or []], said)
    assert seals_of(message) == said.seals
    assert (choice["finish_reason"], answer.finish_reason) == (said.finish, said.finish)
    assert answer.usage == said.usage


@pytest.mark.parametrize("exchange", found(ok=False))
def test_an_error_is_what_it_was(exchange: dict[str, Any]) -> None:
    response = exchange["response"]
    body = replay.body_of(response)
    if response["status"] == 200:
        reader = adapter().stream_reader(request({"model": "alias", "stream": True}))
        with pytest.raises(ERRORS[exchange["id"]]):
            reader.feed(body)
        assert Heard(reader.salvaged).text == "Hel"
        return
    error = adapter().read_error(response["status"], {name.lower(): value for name, value in response["headers"].items()}, body)
    assert type(error) is ERRORS[exchange["id"]]
    assert error.retry_after_s == (34.4 if "retryinfo" in exchange["id"] else None)


@pytest.mark.parametrize("exchange", found("batchGenerateContent", "countTokens"))
def test_an_answer_to_another_question_is_nonsense(exchange: dict[str, Any]) -> None:
    with pytest.raises(errors.ProviderNonsense):
        adapter().read_answer(replay.body_of(exchange["response"]), request())


def embeddings(count: int, encoding_format: str) -> ChatRequest:
    fields = {"input": [str(number) for number in range(count)], "encoding_format": encoding_format, "dimensions": 768}
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    return ChatRequest(cast(Dialect, SimpleNamespace(NAME="embeddings")), "alias", False, False, None, 1, raw)


@pytest.mark.parametrize("exchange", found("batchEmbedContents"))
def test_embeddings_read_as_they_were(exchange: dict[str, Any]) -> None:
    body = replay.body_of(exchange["response"])
    vectors = [row["values"] for row in exchange["response"]["body"]["embeddings"]]
    data = json.loads(adapter().read_answer(body, embeddings(len(vectors), "float")).body)["data"]
    assert [row["embedding"] for row in data] == vectors
    assert [row["index"] for row in data] == list(range(len(vectors)))
    packed = json.loads(adapter().read_answer(body, embeddings(len(vectors), "base64")).body)["data"]
    for row, vector in zip(packed, vectors, strict=True):
        assert struct.unpack(f"<{len(vector)}f", base64.b64decode(row["embedding"])) == pytest.approx(vector, rel=1e-6)


@pytest.mark.parametrize(
    "exchange", [param for param in found() if param.values[0] and param.values[0]["request"]["path"].endswith("/models")]
)
def test_the_list_of_models_reads_as_it_was(exchange: dict[str, Any]) -> None:
    names = [row["name"] for row in exchange["response"]["body"]["models"]]
    assert adapter().read_models(replay.body_of(exchange["response"])) == sorted(name.removeprefix("models/") for name in names)


def tool(name: str, description: str, parameters: Any = None) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "description": description, **({"parameters": parameters} if parameters else {})},
    }


def call(name: str, call_id: str, seal: str = "<seal>") -> dict[str, Any]:
    function = {"name": name, "arguments": "{}"}
    sealed = {"google": {"thought_signature": seal}}
    return {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function, "extra_content": sealed}]}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


# The same requests as an OpenAI client would put them. "<seal>" stands for the recorded thoughtSignature in its place.
ASKED: dict[str, dict[str, Any]] = {
    "gemini-stream-0fd383": {"messages": [user("Count from 1 to 3")], "stream": True},
    "gemini-stream-532012": {"messages": [user("What is the capital of France? Tell me about the city.")], "stream": True},
    "gemini-generate-18749e": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Summarize this document in one sentence."},
                    {"type": "file", "file": {"file_id": "https://generativelanguage.googleapis.com/v1beta/files/mwp1gi5it47f"}},
                ],
            }
        ]
    },
    "gemini-json-65b924": {
        "messages": [user("Generate a person named Alice who is 28 years old")],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "person",
                "schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "number"}},
                    "required": ["name", "age"],
                    "additionalProperties": False,
                },
            },
        },
    },
    "gemini-tool-call-stream-8d431f": {
        "messages": [
            {"role": "system", "content": "Be very terse, not even punctuation."},
            user("What's the current date in YYYY-MM-DD format?"),
        ],
        "tools": [tool("get_date", "Gets the current date", {"type": "object", "properties": {}, "required": []})],
        "temperature": 0,
        "stream": True,
    },
    "gemini-tool-call-stream-baefd5": {
        "messages": [{"role": "system", "content": "You are a helpful assistant"}, user("What's the weather in Florence, Italy?")],
        "tools": [
            tool(
                "weather",
                "Get weather information for a location",
                {"type": "object", "properties": {"location": {"type": "string", "description": "the city"}}, "required": ["location"]},
            )
        ],
        "tool_choice": "auto",
        "reasoning_effort": "low",
        "stream": True,
    },
    "gemini-tool-result-ea39a8": {
        "messages": [
            {"role": "developer", "content": "Always use a tool to answer. Reply with 'It is ____.'."},
            user("What's the current date in Y-M-D format?"),
            call("current_date", "call_1"),
            {"role": "tool", "tool_call_id": "call_1", "content": '{"value": "2024-01-01"}'},
            {"role": "assistant", "content": "It is 2024-01-01."},
            user("What month is it? Provide the full name"),
            call("current_month", "call_2"),
            {"role": "tool", "tool_call_id": "call_2", "content": '{"value": "February"}'},
        ],
        "tools": [
            tool("current_date", "Return the current date"),
            tool("current_month", "Return the full name of the current month"),
        ],
        "temperature": 0,
        "seed": 1014,
    },
    "gemini-tool-result-stream-3b32c5": {
        "messages": [
            user("What is the capital of the user country? Call the tool"),
            call("get_country", "pyd_ai_29bf73b69e02448588e15893d47a3e7e"),
            {"role": "tool", "tool_call_id": "pyd_ai_29bf73b69e02448588e15893d47a3e7e", "content": '{"return_value": "Mexico"}'},
        ],
        "tools": [tool("get_country", "", {"type": "object", "properties": {}, "additionalProperties": False})],
        "stream": True,
    },
    "vertex-error-400-007507": {"messages": [user("Say this is a test")], "temperature": 1000},
}
# What we send otherwise than was recorded, and why.
INTENDED = {
    ".generationConfig: missing (recorded {})": "an empty object says nothing",
    '.generationConfig: missing (recorded {"responseModalities"': "text is what is answered unasked",
    ".systemInstruction.role: missing": "system instructions have no role in Google's documentation",
    ".systemInstruction.parts: ": "a list, as documented; this client sent its one item bare",
    ".parameters: missing": "the client wrote Google's own schema of OpenAPI's kind",
    ".parametersJsonSchema: extra": "a whole JSON schema needs this field",
    '.description: missing (recorded "")': "an empty description says nothing",
    ".functionCall.id: extra": "ids pair results with calls; Google takes any, as gemini-tool-result-stream shows",
    ".functionResponse.id: extra": "see functionCall.id",
    ".mimeType: missing": "OpenAI's file_id has no media type, and Google knows its own files'",
    ".thinkingBudget: 1024 != 128": "OpenAI's dialect knows efforts, no budgets",
}


def camel(content: Any) -> Any:
    """Field names in one of the two spellings that Google takes, but for what is the caller's own."""
    if isinstance(content, list):
        return [camel(item) for item in content]
    if not isinstance(content, dict):
        return content
    named = {name.split("_")[0] + "".join(word.title() for word in name.split("_")[1:]): value for name, value in content.items()}
    own = ("args", "response", "parametersJsonSchema", "responseJsonSchema")
    return {name: value if name in own else camel(value) for name, value in named.items()}


def differences(exchange: dict[str, Any]) -> list[str]:
    recorded, asked = camel(exchange["request"]["body"]), copy.deepcopy(ASKED[exchange["id"]])
    sealed = [message for message in asked["messages"] if "tool_calls" in message]
    turns = [turn for turn in recorded["contents"] if any("thoughtSignature" in part for part in turn["parts"])]
    for message, turn in zip(sealed, turns, strict=True):
        message["tool_calls"][0]["extra_content"]["google"]["thought_signature"] = turn["parts"][0]["thoughtSignature"]
    model_id = exchange["request"]["path"].partition("models/")[2].partition(":")[0]
    sent = adapter().chat_call(request({"model": "alias", **asked}), model(model_id), SECRET)
    if exchange["provider"] == "gemini":
        assert sent.url == f"https://{exchange['request']['host']}{exchange['request']['path']}"
    return replay.differences(recorded, json.loads(sent.body or b""))


@pytest.mark.parametrize(
    "exchange", [param for param in [*found(), *found(ok=False)] if param.values[0] and param.values[0]["id"] in ASKED]
)
def test_what_we_send_is_what_was_recorded(exchange: dict[str, Any]) -> None:
    assert [line for line in differences(exchange) if not any(known in line for known in INTENDED)] == []


def test_the_table_of_intended_differences_holds_no_more_than_there_are() -> None:
    replay.require()
    asked = [param.values[0] for param in [*found(), *found(ok=False)] if param.values[0]["id"] in ASKED]
    assert len(asked) == len(ASKED)
    lines = [line for exchange in asked for line in differences(exchange)]
    assert [known for known in INTENDED if not any(known in line for line in lines)] == []


@pytest.mark.parametrize("exchange", found("generateContent"))
def test_what_an_openai_client_gives_back_is_what_google_said(exchange: dict[str, Any]) -> None:
    body = exchange["response"]["body"]
    said = [part for candidate in body.get("candidates", []) for part in candidate["content"].get("parts", [])]
    message = json.loads(adapter().read_answer(replay.body_of(exchange["response"]), request()).body)["choices"][0]["message"]
    again = adapter().chat_call(request({"model": "alias", "messages": [user("hi"), message]}), model(body["modelVersion"]), SECRET)
    parts = [part for turn in json.loads(again.body or b"")["contents"][1:] for part in turn["parts"]]
    for part, original in zip(parts, said, strict=True):
        if "functionCall" in part and "id" not in original["functionCall"]:
            assert part["functionCall"].pop("id").startswith("call_")
    assert parts == said


async def test_an_exchange_replays_over_a_socket() -> None:
    with replay.replay_server() as address:
        transport = GuardedTransport(Guard([("127.0.0.0/8", None)]))
        for exchange in (param.values[0] for param in found(*CHAT) if param.values[0]["provider"] == "gemini"):
            vendor = adapter(f"{address}/{exchange['id']};chunk=5")
            asked = request({"model": "alias", "messages": [user("hi")], "stream": "lines" in exchange["response"]})
            response = await vendor.send(transport, vendor.chat_call(asked, model("gemini-2.5-flash"), SECRET))
            assert response.status == 200
            assert await response.read(2**20) == replay.body_of(exchange["response"])
        await transport.close()
