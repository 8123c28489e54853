"""Turns of an agent, from every client dialect to every wire: what each vendor documents about their order holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.config import ModelSpec
from core.errors import InvalidRequest
from gateway.doors import anthropic_messages, openai_chat, responses
from providers.adapters.registry import adapter_for
from tests.adapters.cast import SECRET, provider

PNG = "data:image/png;base64,aGk="
WIRES = ("openai_compatible", "anthropic", "gemini", "dashscope")
MODELS = {"gemini": "gemini-3-pro", "dashscope": "qwen3-max"}

# A neutral script: ("user", text), ("system", text), ("calls", text, [(id, name, arguments)]), ("result", id, output, is_error).
Turn = tuple[Any, ...]
PARALLEL: list[Turn] = [
    ("user", "go"),
    ("calls", "", [("a", "f", "{}"), ("b", "g", '{"x":1}'), ("c", "f", "")]),
    ("result", "c", "3", False),
    ("result", "a", "1", False),
    ("result", "b", "broke", True),
    ("user", "and?"),
]
SCRIPTS: dict[str, list[Turn]] = {
    "parallel calls, results in another order, one an error": PARALLEL,
    "a picture in a result": [("user", "go"), ("calls", "look", [("a", "f", "{}")]), ("result", "a", PNG, False)],
    "ids of any letters": [
        ("user", "go"),
        ("calls", "", [("天", "f", "{}"), ("地", "f", "{}"), ("get:0", "f", "{}"), ("get_0", "f", "{}")]),
        *[("result", id_, "1", False) for id_ in ("地", "天", "get_0", "get:0")],
    ],
    "an id once more": [
        *[("user", "go"), ("calls", "", [("a", "f", "{}")]), ("result", "a", "1", False)],
        *[("calls", "", [("a", "g", "{}")]), ("result", "a", "2", False)],
    ],
    "a system message in the middle": [*PARALLEL[:5], ("system", "be brief"), ("user", "and?")],
    "two turns of the user": [("user", "one"), ("user", "two"), *PARALLEL[1:5], ("user", "three"), ("user", "four")],
    "an empty result": [("user", "go"), ("calls", "", [("a", "f", "{}")]), ("result", "a", "", False)],
    "a thousand messages": [("user", "go")]
    + [
        turn for at in range(333) for turn in (("calls", "", [(f"c{at}", "f", "{}")]), ("result", f"c{at}", str(at), False), ("user", "on"))
    ],
}


def as_openai(script: list[Turn]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for kind, *told in script:
        match kind:
            case "calls":
                calls = [{"id": id_, "type": "function", "function": {"name": name, "arguments": said}} for id_, name, said in told[1]]
                messages.append({"role": "assistant", "content": told[0] or None, "tool_calls": calls})
            case "result":
                shown = [{"type": "image_url", "image_url": {"url": PNG}}] if told[1] == PNG else told[1]
                messages.append({"role": "tool", "tool_call_id": told[0], "content": shown})
            case _:
                messages.append({"role": kind, "content": told[0]})
    return {"model": "alias", "messages": messages}


def as_anthropic(script: list[Turn], *, apart: bool = False) -> dict[str, Any]:
    """`apart`: results come one a turn, words between them, which Anthropic takes for one turn."""
    messages: list[dict[str, Any]] = []
    for kind, *told in script:
        blocks: list[dict[str, Any]]
        match kind:
            case "calls":
                blocks = [{"type": "text", "text": told[0]}] if told[0] else []
                blocks += [{"type": "tool_use", "id": id_, "name": name, "input": json.loads(said or "{}")} for id_, name, said in told[1]]
                messages.append({"role": "assistant", "content": blocks})
            case "result":
                image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
                shown = [image] if told[1] == PNG else told[1]
                blocks = [{"type": "tool_result", "tool_use_id": told[0], "content": shown, "is_error": told[2]}]
                if apart:
                    messages += [{"role": "user", "content": blocks}, {"role": "user", "content": "meanwhile"}]
                elif messages[-1]["role"] == "user" and isinstance(messages[-1]["content"], list):
                    messages[-1]["content"] += blocks
                else:
                    messages.append({"role": "user", "content": blocks})
            case _:
                messages.append({"role": kind, "content": told[0]})
    return {"model": "alias", "max_tokens": 100, "messages": messages}


def as_responses(script: list[Turn]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for kind, *told in script:
        match kind:
            case "calls":
                items += [{"role": "assistant", "content": told[0]}] if told[0] else []
                items += [{"type": "function_call", "call_id": id_, "name": name, "arguments": said} for id_, name, said in told[1]]
            case "result":
                shown = [{"type": "input_image", "image_url": PNG}] if told[1] == PNG else told[1]
                items.append({"type": "function_call_output", "call_id": told[0], "output": shown})
            case _:
                items.append({"role": kind, "content": told[0]})
    return {"model": "alias", "input": items}


CLIENTS: dict[str, Any] = {
    "openai": (openai_chat, as_openai),
    "anthropic": (anthropic_messages, as_anthropic),
    "anthropic, results apart": (anthropic_messages, lambda script: as_anthropic(script, apart=True)),
    "responses": (responses, as_responses),
}


def wire_of(kind: str, dialect: Any, body: dict[str, Any]) -> dict[str, Any]:
    model = ModelSpec("model-1", "alias", MODELS.get(kind, "m-1"), "provider-1")
    request = dialect.parse(json.dumps(body).encode())
    sent: dict[str, Any] = json.loads(adapter_for(provider(kind)).chat_call(request, model, SECRET).body or b"")
    return sent


def check_openai(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Every call is answered before anything else is said. Returns (name, what its result says) in the order of results."""
    open_calls: dict[str, str] = {}
    answered = []
    for message in messages:
        if message["role"] == "tool":
            answered.append((open_calls.pop(message["tool_call_id"]), message["content"]))
            continue
        assert not open_calls, f"{message['role']} speaks before all calls are answered"
        for call in message.get("tool_calls", []):
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert call["id"] not in open_calls
            open_calls[call["id"]] = call["function"]["name"]
    assert not open_calls
    return answered


def check_anthropic(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Turns alternate; a turn with calls is followed by one that begins with all of their results."""
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"] * (len(messages) % 2)
    answered = []
    calls: dict[str, str] = {}
    for message in messages:
        blocks = message["content"]
        results = [block for block in blocks if block["type"] == "tool_result"]
        assert blocks[: len(results)] == results
        assert sorted(block["tool_use_id"] for block in results) == sorted(calls)
        answered += [(calls[block["tool_use_id"]], "".join(part.get("text", "") for part in block.get("content", []))) for block in results]
        uses = [block for block in blocks if block["type"] == "tool_use"]
        calls = {block["id"]: block["name"] for block in uses}
        assert len(calls) == len(uses), "two calls of one turn have one id"
        assert all(block.get("text", "x").strip() for block in blocks)
    assert not calls
    return answered


def check_gemini(contents: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """A turn with calls is followed by one with as many responses, each with the id and the name of its call."""
    answered = []
    calls: dict[str, str] = {}
    for before, after in zip([None, *contents], contents, strict=False):
        assert before is None or before["role"] != after["role"]
        responses_here = [part["functionResponse"] for part in after["parts"] if "functionResponse" in part]
        assert {it["id"]: it["name"] for it in responses_here} == calls
        for it in responses_here:
            answered.append((it["name"], str(it["response"].get("result", it["response"].get("error", it["response"])))))
        calls = {part["functionCall"]["id"]: part["functionCall"]["name"] for part in after["parts"] if "functionCall" in part}
    assert not calls
    return answered


def check(kind: str, sent: dict[str, Any]) -> list[tuple[str, str]]:
    if kind == "gemini":
        return check_gemini(sent["contents"])
    if kind == "dashscope":
        messages = sent["input"]["messages"]
        for message in messages:
            if isinstance(message["content"], list):
                message["content"] = "".join(part.get("text", "") for part in message["content"])
        return check_openai(messages)
    return check_anthropic(sent["messages"]) if kind == "anthropic" else check_openai(sent["messages"])


# What passes through is the client's own order, byte for byte.
TRANSLATED = [
    (client, kind)
    for client, (dialect, _) in CLIENTS.items()
    for kind in WIRES
    if (kind, dialect) not in (("anthropic", anthropic_messages), ("openai_compatible", openai_chat))
]


@pytest.mark.parametrize(("client", "kind"), TRANSLATED)
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_result_follows_its_call(script: str, client: str, kind: str) -> None:
    dialect, spell = CLIENTS[client]
    turns = SCRIPTS[script]
    answered = check(kind, wire_of(kind, dialect, spell(turns)))
    names = {id_: name for turn in turns if turn[0] == "calls" for id_, name, _ in turn[2]}
    assert len(answered) == sum(turn[0] == "result" for turn in turns)
    if script == "parallel calls, results in another order, one an error":
        wanted = [(names[turn[1]], turn[2]) for turn in turns if turn[0] == "result"]
        assert sorted(answered) == sorted(wanted)


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
@pytest.mark.parametrize("arguments", ["[1]", '"text"', "3", "{broken"])
def test_arguments_that_are_no_object_are_refused_by_name(kind: str, arguments: str) -> None:
    script = [("user", "go"), ("calls", "", [("a", "f", arguments)]), ("result", "a", "1", False)]
    with pytest.raises(InvalidRequest) as refused:
        wire_of(kind, openai_chat, as_openai(script))
    assert refused.value.param == "messages"


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
def test_a_conversation_of_system_messages_alone_is_refused_before_the_vendor_does(kind: str) -> None:
    for messages in ([{"role": "system", "content": "be"}], [{"role": "user", "content": ""}]):
        with pytest.raises(InvalidRequest) as refused:
            wire_of(kind, openai_chat, {"model": "alias", "messages": messages})
        assert refused.value.param == "messages"


@pytest.mark.parametrize("kind", WIRES)
def test_a_turn_that_ends_with_a_call_goes_to_the_vendor_as_it_is(kind: str) -> None:
    """Whether it may stand there is the vendor's to say, and each says so in its own words."""
    sent = wire_of(kind, responses, as_responses([("user", "go"), ("calls", "", [("a", "f", "")])]))
    assert b'"f"' in json.dumps(sent).encode()


@pytest.mark.parametrize("chosen", ["auto", "none"])
def test_a_choice_among_no_tools_is_not_sent_to_openais(chosen: str) -> None:
    """OpenAI answers 400 to it, while clients of its Responses always say it."""
    sent = wire_of("openai_compatible", responses, {"model": "alias", "input": "hi", "tool_choice": chosen, "parallel_tool_calls": True})
    assert "tool_choice" not in sent
    assert "parallel_tool_calls" not in sent


@pytest.mark.parametrize(
    ("kind", "dialect", "body", "param"),
    [
        (
            "gemini",
            anthropic_messages,
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ("anthropic", responses, {"text": {"format": {"type": "json_object"}}}, "text.format"),
        ("anthropic", responses, {"reasoning": {"effort": "high"}, "tool_choice": "required"}, "reasoning.effort"),
        ("anthropic", openai_chat, {"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_refusal_names_the_field_as_the_client_does(kind: str, dialect: Any, body: dict[str, Any], param: str) -> None:
    base = {"input": "hi"} if dialect is responses else {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    function = {"name": "f", "input_schema": {}} if dialect is anthropic_messages else {"type": "function", "name": "f"}
    tools = {} if dialect is openai_chat else {"tools": [function]}
    with pytest.raises(InvalidRequest) as refused:
        wire_of(kind, dialect, {"model": "alias", **base, **tools, **body})
    assert refused.value.param == param
    assert repr(param) in refused.value.message


def test_what_is_left_out_is_reported_as_the_client_calls_it() -> None:
    body = {"model": "alias", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "metadata": {"user_id": "u"}}
    request = anthropic_messages.parse(json.dumps(body).encode())
    call = adapter_for(provider("gemini")).chat_call(request, ModelSpec("model-1", "alias", "gemini-3-pro", "provider-1"), SECRET)
    assert call.dropped == ("metadata.user_id",)
