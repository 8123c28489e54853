"""What goes out to Gemini is what google-genai sends for the same question. No network: the SDK's transport is ours."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx2
import msgspec
from google import genai
from google.genai import types

from core.conversation import Conversation, File, Image, Message, Reasoning, ReasoningWish, Text, Tool, ToolChoice, ToolResult, ToolUse
from core.plain import plain_request
from tests.wire.gemini_cast import KEY, SECRET, adapter, embeddings, model, sent


def asked_by_the_sdk(ask: Any) -> tuple[str, Any]:
    """Address and body of what google-genai sends, less two intended differences: the SDK mixes snake_case and camelCase, of
    which Google takes either, and names a role where there is but one, in system instructions and texts to embed."""
    caught: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        caught.append(request)
        found = {"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}], "embeddings": [{"values": [1]}]}
        return httpx2.Response(200, json={**found, "models": []})

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        options = types.HttpOptions(base_url="https://vendor.test", api_version="v1beta", httpx_client=http)
        ask(genai.Client(api_key=KEY, http_options=options))
    assert caught[0].headers["x-goog-api-key"] == KEY
    body = camel(json.loads(caught[0].content)) if caught[0].content else None
    for content in [(body or {}).get("systemInstruction"), *(asked["content"] for asked in (body or {}).get("requests", ()))]:
        assert content is None or content.pop("role") == "user"
    return str(caught[0].url), body


def camel(content: Any) -> Any:
    """Field names in one spelling, but for what is the caller's own: schemas, arguments, results."""
    if isinstance(content, list):
        return [camel(item) for item in content]
    if not isinstance(content, dict):
        return content
    named = {name.split("_")[0] + "".join(word.title() for word in name.split("_")[1:]): value for name, value in content.items()}
    own = ("args", "response", "parametersJsonSchema", "responseJsonSchema")
    return {name: value if name in own else camel(value) for name, value in named.items()}


def test_a_conversation_is_what_google_genai_sends_of_it() -> None:
    schema = {"type": "object", "properties": {"city_name": {"type": "string"}}, "additionalProperties": False}
    conversation = Conversation(
        [
            Message("system", [Text("Be brief.")]),
            Message("user", [Text("What is this?"), Image(data="aGk=", media_type="image/png"), File(url="https://papers.test/a.pdf")]),
            Message("assistant", [Reasoning("hm"), ToolUse("c1", "weather", '{"city_name": "Rome"}', "c2VhbA==")]),
            Message("tool", [ToolResult("c1", [Text("rain")])]),
        ],
        max_output_tokens=10, temperature=0.5, top_p=0.9, top_k=3, stop=["x"], seed=3, presence_penalty=0.1, frequency_penalty=0.2,
        tools=[Tool("weather", "The weather.", msgspec.Raw(json.dumps(schema).encode()))], tool_choice=ToolChoice("tool", "weather"),
        reasoning=ReasoningWish(effort="low"),
    )  # fmt: skip
    part = types.Part
    contents = [
        types.Content(
            role="user",
            parts=[
                part(text="What is this?"),
                part.from_bytes(data=b"hi", mime_type="image/png"),
                part.from_uri(file_uri="https://papers.test/a.pdf"),
            ],
        ),
        types.Content(
            role="model",
            parts=[
                part(text="hm", thought=True),
                part(
                    function_call=types.FunctionCall(id="c1", name="weather", args={"city_name": "Rome"}),
                    thought_signature=base64.b64decode("c2VhbA=="),
                ),
            ],
        ),
        types.Content(
            role="user", parts=[part(function_response=types.FunctionResponse(id="c1", name="weather", response={"result": "rain"}))]
        ),
    ]
    config = types.GenerateContentConfig(
        system_instruction="Be brief.", max_output_tokens=10, temperature=0.5, top_p=0.9, top_k=3, stop_sequences=["x"], seed=3,
        presence_penalty=0.1, frequency_penalty=0.2,
        tools=[types.Tool(function_declarations=[
            types.FunctionDeclaration(name="weather", description="The weather.", parameters_json_schema=schema)])],
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(
            mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"])),
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.LOW),
    )  # fmt: skip

    url, body = asked_by_the_sdk(lambda sdk: sdk.models.generate_content(model="gemini-3.5-flash", contents=contents, config=config))
    call = adapter("https://vendor.test").chat_call(plain_request("alias", conversation, stream=False), model("gemini-3.5-flash"), SECRET)
    assert call.url == url
    assert json.loads(call.body or b"") == body
    url, body = asked_by_the_sdk(
        lambda sdk: list(sdk.models.generate_content_stream(model="gemini-3.5-flash", contents=contents, config=config))
    )
    call = adapter("https://vendor.test").chat_call(plain_request("alias", conversation, stream=True), model("gemini-3.5-flash"), SECRET)
    assert call.url == url
    assert json.loads(call.body or b"") == body


def test_json_output_is_what_google_genai_sends_of_it() -> None:
    schema = {"type": "object", "properties": {"a_b": {"type": ["string", "null"]}}, "required": ["a_b"]}
    conversation = msgspec.json.decode(
        json.dumps({"messages": [{"role": "user", "parts": [{"type": "text", "text": "hi"}]}], "json_output": {"schema": schema}}),
        type=Conversation,
    )
    config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=schema)
    _, body = asked_by_the_sdk(
        lambda sdk: sdk.models.generate_content(
            model="gemini-2.5-flash", contents=[types.Content(role="user", parts=[types.Part(text="hi")])], config=config
        )
    )
    assert sent(conversation, model())[0] == body


def test_the_list_of_models_is_asked_for_as_google_genai_does() -> None:
    url, _ = asked_by_the_sdk(lambda sdk: list(sdk.models.list(config={"page_size": 1000})))
    assert adapter("https://vendor.test").models_call(SECRET).url == url


def test_embeddings_are_what_google_genai_sends_of_them() -> None:
    url, body = asked_by_the_sdk(
        lambda sdk: sdk.models.embed_content(
            model="gemini-embedding-001", contents=["a", "b"], config=types.EmbedContentConfig(output_dimensionality=8)
        )
    )
    call = adapter("https://vendor.test").chat_call(embeddings(input=["a", "b"], dimensions=8), model("gemini-embedding-001"), SECRET)
    assert call.url == url
    assert json.loads(call.body or b"") == body
