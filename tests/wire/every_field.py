"""Whatever a client's dialect can say: for each field a pair of bodies, whose calls `test_nothing_is_lost` compares."""

from __future__ import annotations

from typing import Any, NamedTuple

Body = dict[str, Any]
PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,aGk="
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


class Pair(NamedTuple):
    """`after` says one thing more than `before`, or another."""

    after: Body
    before: Body = {}


def user(*content: Any, **more: Any) -> Body:
    return {"messages": [{"role": "user", "content": content[0] if isinstance(content[0], str) else list(content), **more}]}


# OpenAI's chat


def said(before: Body | None = None, **message: Any) -> Body:
    """An assistant's turn between two of the user's."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes", **message}, {"role": "user", "content": "go on"}]
    return {"messages": turns}


def called(result: Any = "1", told: Body | None = None, function: Body | None = None, **call: Any) -> Body:
    """A call of a tool and its result."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}", **(function or {})}, **call}
    answer = {"role": "tool", "tool_call_id": call["id"], "content": result, **(told or {})}
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}, answer]}


def tool(**function: Any) -> Body:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, **function}}]}


def image(**more: Any) -> Body:
    return user({"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG, **more}})


def file(**more: Any) -> Body:
    return user({"type": "text", "text": "see"}, {"type": "file", "file": {"file_data": PDF, **more}})


def json_schema(**more: Any) -> Body:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, **more}}}


SEALED = {"type": "thinking", "thinking": "hm"}
LEGACY = {
    "messages": [*said(function_call={"name": "f", "arguments": "{}"})["messages"][:2], {"role": "function", "name": "f", "content": "1"}]
}
OPENAI: dict[str, Pair] = {
    "openai_chat._Body.model": Pair({"model": "alias"}),
    "openai_chat._Body.stream": Pair({"stream": True}),
    "openai_chat._Body.stream_options": Pair({"stream": True, "stream_options": {"include_usage": True}}),
    "openai_fields.StreamOptions.include_usage": Pair({"stream": True, "stream_options": {"include_usage": True}}),
    "openai_chat._Body.logprobs": Pair({"logprobs": True}),
    "openai_chat._Body.top_logprobs": Pair({"logprobs": True, "top_logprobs": 3}),
    "openai_reading._Body.messages": Pair(user("ho")),
    "openai_reading._Body.max_completion_tokens": Pair({"max_completion_tokens": 7}),
    "openai_reading._Body.max_tokens": Pair({"max_tokens": 7}),
    "openai_reading._Body.temperature": Pair({"temperature": 0.5}),
    "openai_reading._Body.top_p": Pair({"top_p": 0.5}),
    "openai_reading._Body.top_k": Pair({"top_k": 5}),
    "openai_reading._Body.stop": Pair({"stop": ["x"]}),
    "openai_reading._Body.seed": Pair({"seed": 3}),
    "openai_reading._Body.presence_penalty": Pair({"presence_penalty": 0.5}),
    "openai_reading._Body.frequency_penalty": Pair({"frequency_penalty": 0.5}),
    "openai_reading._Body.n": Pair({"n": 2}),
    "openai_reading._Body.tools": Pair(tool()),
    "openai_reading._Body.functions": Pair({"functions": [{"name": "f"}]}),
    "openai_reading._Body.tool_choice": Pair({**tool(), "tool_choice": "required"}, tool()),
    "openai_reading._Body.function_call": Pair(
        {"functions": [{"name": "f"}], "function_call": {"name": "f"}}, {"functions": [{"name": "f"}]}
    ),
    "openai_reading._Body.parallel_tool_calls": Pair({**tool(), "parallel_tool_calls": False}, tool()),
    "openai_reading._Body.response_format": Pair({"response_format": {"type": "json_object"}}),
    "openai_reading._Body.reasoning_effort": Pair({"reasoning_effort": "high"}),
    "openai_reading._Body.thinking": Pair({"thinking": {"type": "enabled"}}),
    "openai_reading._Body.enable_thinking": Pair({"enable_thinking": True}),
    "openai_reading._Body.thinking_budget": Pair({"thinking_budget": 2000}),
    "openai_reading._Body.reasoning": Pair({"reasoning": {"effort": "high"}}),
    "openai_reading._Body.user": Pair({"user": "u-1"}),
    "openai_reading._Tool.type": Pair({"tools": [*tool()["tools"], {"type": "web_search"}]}, tool()),
    "openai_reading._Tool.function": Pair(tool(name="g"), tool()),
    "openai_reading._Tool.cache_control": Pair({"tools": [{**tool()["tools"][0], "cache_control": {"type": "ephemeral"}}]}, tool()),
    "openai_reading._Function.name": Pair(tool(name="g"), tool()),
    "openai_reading._Function.description": Pair(tool(description="does"), tool()),
    "openai_reading._Function.parameters": Pair(tool(parameters={"type": "object", "properties": {"b": {}}}), tool()),
    "openai_reading._Function.strict": Pair(tool(strict=True), tool()),
    "openai_reading._ToolChoice.type": Pair({**tool(), "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, tool()),
    "openai_reading._ToolChoice.function": Pair({**tool(), "tool_choice": {"type": "function", "function": {"name": "f"}}}, tool()),
    "openai_reading._Name.name": Pair({**tool(), "tool_choice": {"type": "function", "function": {"name": "f"}}}, tool()),
    "openai_reading._Format.type": Pair({"response_format": {"type": "grammar"}}),
    "openai_reading._Format.json_schema": Pair(json_schema()),
    "openai_reading._Schema.schema": Pair(json_schema(schema={"type": "object"}), json_schema()),
    "openai_reading._Schema.name": Pair(json_schema(name="other"), json_schema()),
    "openai_reading._Schema.description": Pair(json_schema(description="what it is"), json_schema()),
    "openai_reading._Schema.strict": Pair(json_schema(strict=True), json_schema()),
    "openai_reading._Thinking.type": Pair({"thinking": {"type": "disabled"}}),
    "openai_reading._Thinking.budget_tokens": Pair(
        {"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking": {"type": "enabled"}}
    ),
    "openai_reading._Reasoning.effort": Pair({"reasoning": {"effort": "high"}}, {"reasoning": {"enabled": True}}),
    "openai_reading._Reasoning.max_tokens": Pair({"reasoning": {"max_tokens": 2000}}, {"reasoning": {"enabled": True}}),
    "openai_reading._Reasoning.enabled": Pair({"reasoning": {"enabled": True}}),
    "openai_reading._Reasoning.exclude": Pair({"reasoning": {"exclude": True}}),
    "openai_messages.Message.role": Pair({"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]}),
    "openai_messages.Message.content": Pair(user("ho")),
    "openai_messages.Message.name": Pair(user("hi", name="ann")),
    "a system message's name": Pair(
        {"messages": [{"role": "system", "content": "be", "name": "op"}, *user("hi")["messages"]]},
        {"messages": [{"role": "system", "content": "be"}, *user("hi")["messages"]]},
    ),
    "stream_options beside include_usage": Pair({"stream": True, "stream_options": {"include_obfuscation": True}}, {"stream": True}),
    "openai_messages.Message.refusal": Pair(said(refusal="no"), said()),
    "openai_messages.Message.tool_calls": Pair(called(), said()),
    "openai_messages.Message.tool_call_id": Pair(called(id="c2"), called()),
    "openai_messages.Message.function_call": Pair(LEGACY, said()),
    "openai_messages.Message.reasoning_content": Pair(said(reasoning_content="hm"), said()),
    "openai_messages.Message.reasoning": Pair(said(reasoning="hm"), said()),
    "openai_messages.Message.thinking_blocks": Pair(said(thinking_blocks=[{**SEALED, "signature": "s"}]), said()),
    "openai_messages._Part.type": Pair(image(), user("see")),
    "openai_messages._Part.text": Pair(user({"type": "text", "text": "ho"})),
    "openai_messages._Part.refusal": Pair(said(content=[{"type": "refusal", "refusal": "no"}]), said()),
    "openai_messages._Part.image_url": Pair(image(), user("see")),
    "openai_messages._Part.input_audio": Pair(user({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}})),
    "openai_messages._Part.file": Pair(file(), user("see")),
    "openai_messages._Url.url": Pair(image(url="https://a.test/b.png"), image()),
    "openai_messages._Url.detail": Pair(image(detail="low"), image()),
    "openai_messages._Audio.data": Pair(user({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}})),
    "openai_messages._Audio.format": Pair(user({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}})),
    "openai_messages._File.file_data": Pair(file(), user("see")),
    "openai_messages._File.file_id": Pair(file(file_id="files/a"), file()),
    "openai_messages._File.filename": Pair(file(filename="report.pdf"), file()),
    "openai_messages._ToolCall.function": Pair(called(function={"name": "g"}), called()),
    "openai_messages._ToolCall.id": Pair(called(id="c2"), called()),
    "openai_messages._ToolCall.type": Pair(called(type="custom"), called()),
    "openai_messages._ToolCall.extra_content": Pair(called(extra_content={"google": {"thought_signature": "c2ln"}}), called()),
    "openai_messages._Function.name": Pair(called(function={"name": "g"}), called()),
    "openai_messages._Function.arguments": Pair(called(function={"arguments": '{"a":1}'}), called()),
    "openai_messages._Extra.google": Pair(called(extra_content={"google": {"thought_signature": "c2ln"}}), called()),
    "openai_messages._Google.thought_signature": Pair(called(extra_content={"google": {"thought_signature": "c2ln"}}), called()),
    "openai_messages._Thought.type": Pair(said(thinking_blocks=[{"type": "redacted_thinking", "data": "b3Bh"}]), said()),
    "openai_messages._Thought.thinking": Pair(said(thinking_blocks=[{**SEALED, "signature": "s"}]), said()),
    "openai_messages._Thought.signature": Pair(said(thinking_blocks=[{**SEALED, "signature": "s"}]), said(thinking_blocks=[SEALED])),
    "openai_messages._Thought.data": Pair(said(thinking_blocks=[{"type": "redacted_thinking", "data": "b3Bh"}]), said()),
}

# Anthropic's messages


def answered(result: Body | None = None, call: Body | None = None, *shown: Any) -> Body:
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}, **(call or {})}
    given = {"type": "tool_result", "tool_use_id": use["id"], "content": [{"type": "text", "text": "1"}, *shown], **(result or {})}
    return {"messages": [*user("hi")["messages"], {"role": "assistant", "content": [use]}, *user(given)["messages"]]}


def spoken(*blocks: Body) -> Body:
    said_blocks = [*blocks, {"type": "text", "text": "yes"}]
    return {"messages": [*user("hi")["messages"], {"role": "assistant", "content": said_blocks}, *user("go on")["messages"]]}


def theirs(**more: Any) -> Body:
    return {"tools": [{"name": "f", "input_schema": SCHEMA, **more}]}


def document(source: Body | None = None, **more: Any) -> Body:
    source = source or {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    return user({"type": "document", "source": source, **more}, {"type": "text", "text": "see"})


def picture(**source: Any) -> Body:
    return user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk=", **source}})


ASKED_SCHEMA = {"format": {"type": "json_schema", "schema": SCHEMA}}
ANTHROPIC: dict[str, Pair] = {
    "anthropic_messages._Body.model": Pair({"model": "alias"}),
    "anthropic_messages._Body.stream": Pair({"stream": True}),
    "anthropic_reading._Body.messages": Pair(user("ho")),
    "anthropic_reading._Body.system": Pair({"system": "be"}),
    "anthropic_reading._Body.max_tokens": Pair({"max_tokens": 7}),
    "anthropic_reading._Body.temperature": Pair({"temperature": 0.5}),
    "anthropic_reading._Body.top_p": Pair({"top_p": 0.5}),
    "anthropic_reading._Body.top_k": Pair({"top_k": 5}),
    "anthropic_reading._Body.stop_sequences": Pair({"stop_sequences": ["x"]}),
    "anthropic_reading._Body.tools": Pair(theirs()),
    "anthropic_reading._Body.tool_choice": Pair({**theirs(), "tool_choice": {"type": "any"}}, theirs()),
    "anthropic_reading._Body.thinking": Pair({"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    "anthropic_reading._Body.output_config": Pair({"output_config": ASKED_SCHEMA}),
    "anthropic_reading._Body.output_format": Pair({"output_format": ASKED_SCHEMA["format"]}),
    "anthropic_reading._Body.metadata": Pair({"metadata": {"user_id": "u-1"}}),
    "anthropic_reading._Message.role": Pair({"messages": [*user("hi")["messages"], {"role": "assistant", "content": "I say"}]}),
    "anthropic_reading._Message.content": Pair(user("ho")),
    "anthropic_reading._Tool.name": Pair(theirs(name="g"), theirs()),
    "anthropic_reading._Tool.type": Pair({"tools": [*theirs()["tools"], {"type": "web_search_20250305", "name": "web_search"}]}, theirs()),
    "anthropic_reading._Tool.description": Pair(theirs(description="does"), theirs()),
    "anthropic_reading._Tool.input_schema": Pair(theirs(input_schema={"type": "object", "properties": {"b": {}}}), theirs()),
    "anthropic_reading._Tool.strict": Pair(theirs(strict=True), theirs()),
    "anthropic_reading._ToolChoice.type": Pair({**theirs(), "tool_choice": {"type": "none"}}, theirs()),
    "anthropic_reading._ToolChoice.name": Pair({**theirs(), "tool_choice": {"type": "tool", "name": "f"}}, theirs()),
    "anthropic_reading._ToolChoice.disable_parallel_tool_use": Pair(
        {**theirs(), "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, {**theirs(), "tool_choice": {"type": "auto"}}
    ),
    "anthropic_reading._Thinking.type": Pair({"thinking": {"type": "disabled"}}),
    "anthropic_reading._Thinking.budget_tokens": Pair(
        {"thinking": {"type": "enabled", "budget_tokens": 20000}}, {"thinking": {"type": "enabled"}}
    ),
    "anthropic_reading._Thinking.display": Pair(
        {"thinking": {"type": "adaptive", "display": "omitted"}}, {"thinking": {"type": "adaptive"}}
    ),
    "anthropic_reading._OutputConfig.effort": Pair({"output_config": {"effort": "low"}}),
    "anthropic_reading._OutputConfig.format": Pair({"output_config": ASKED_SCHEMA}),
    "anthropic_reading._OutputConfig.task_budget": Pair({"output_config": {"task_budget": {"type": "tokens", "total": 9}}}),
    "anthropic_reading._Format.type": Pair({"output_config": ASKED_SCHEMA}),
    "anthropic_reading._Format.schema": Pair({"output_config": ASKED_SCHEMA}),
    "anthropic_reading._Metadata.user_id": Pair({"metadata": {"user_id": "u-1"}}),
    "anthropic_blocks.Block.type": Pair(picture()),
    "anthropic_blocks.Block.text": Pair(user({"type": "text", "text": "ho"})),
    "anthropic_blocks.Block.source": Pair(picture()),
    "anthropic_blocks.Block.title": Pair(document(title="report"), document()),
    "anthropic_blocks.Block.context": Pair(document(context="old"), document()),
    "anthropic_blocks.Block.id": Pair(answered(call={"id": "t2"}), answered()),
    "anthropic_blocks.Block.name": Pair(answered(call={"name": "g"}), answered()),
    "anthropic_blocks.Block.input": Pair(answered(call={"input": {"a": 1}}), answered()),
    "anthropic_blocks.Block.tool_use_id": Pair(answered(call={"id": "t2"}), answered()),
    "anthropic_blocks.Block.content": Pair(answered({"content": "2"}), answered()),
    "anthropic_blocks.Block.is_error": Pair(answered({"is_error": True}), answered()),
    "anthropic_blocks.Block.thinking": Pair(spoken({"type": "thinking", "thinking": "hm", "signature": "s"}), spoken()),
    "anthropic_blocks.Block.signature": Pair(
        spoken({"type": "thinking", "thinking": "hm", "signature": "s"}), spoken({"type": "thinking", "thinking": "hm", "signature": ""})
    ),
    "anthropic_blocks.Block.data": Pair(spoken({"type": "redacted_thinking", "data": "b3Bh"}), spoken()),
    "anthropic_blocks.Block.cache_control": Pair(user({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}})),
    "anthropic_blocks.Block.citations": Pair(document(citations={"enabled": True}), document()),
    "anthropic_blocks.Block.transformations": Pair(user({**picture()["messages"][0]["content"][0], "transformations": [{}]}), picture()),
    "anthropic_blocks._Source.type": Pair(document({"type": "text", "media_type": "text/plain", "data": "words"}), document()),
    "anthropic_blocks._Source.data": Pair(picture(data="aGhp"), picture()),
    "anthropic_blocks._Source.media_type": Pair(picture(media_type="image/webp"), picture()),
    "anthropic_blocks._Source.url": Pair(document({"type": "url", "url": "https://a.test/b.pdf"}), document()),
    "anthropic_blocks._Source.file_id": Pair(document({"type": "file", "file_id": "files/a"}), document()),
    "anthropic_blocks._Source.content": Pair(document({"type": "content", "content": [{"type": "text", "text": "words"}]}), document()),
    "anthropic_blocks._Citations.enabled": Pair(document(citations={"enabled": True}), document()),
    "citations of an answer": Pair(
        {
            "messages": [
                *user("hi")["messages"],
                {"role": "assistant", "content": [{"type": "text", "text": "yes", "citations": [{"type": "page"}]}]},
            ]
        },
        {"messages": [*user("hi")["messages"], {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]},
    ),
    "a picture in a result": Pair(answered({}, {}, picture()["messages"][0]["content"][0]), answered()),
}

# OpenAI's responses


def items(*more: Body) -> Body:
    return {"input": [{"type": "message", "role": "user", "content": "hi"}, *more]}


def part(**more: Any) -> Body:
    return {"input": [{"role": "user", "content": [{"type": "input_text", "text": "see"}, more]}]}


def run(output: Any = "1", **call: Any) -> Body:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", **call}
    return items(call, {"type": "function_call_output", "call_id": call["call_id"], "output": output})


def flat(**more: Any) -> Body:
    return {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA, **more}]}


def formed(**more: Any) -> Body:
    return {"text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, **more}}}


def thought(**more: Any) -> Body:
    return items(
        {"type": "reasoning", "id": "rs_1", "summary": [], **more},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "go on"},
    )


RESPONSES: dict[str, Pair] = {
    "responses._Body.model": Pair({"model": "alias"}),
    "responses._Body.stream": Pair({"stream": True}),
    "responses._Body.background": Pair({"background": True}),
    "responses._Asked.input": Pair({"input": "ho"}),
    "responses._Asked.instructions": Pair({"instructions": "be"}),
    "responses._Asked.max_output_tokens": Pair({"max_output_tokens": 7}),
    "responses._Asked.temperature": Pair({"temperature": 0.5}),
    "responses._Asked.top_p": Pair({"top_p": 0.5}),
    "responses._Asked.tools": Pair(flat()),
    "responses._Asked.tool_choice": Pair({**flat(), "tool_choice": "required"}, flat()),
    "responses._Asked.parallel_tool_calls": Pair({**flat(), "parallel_tool_calls": False}, flat()),
    "responses._Asked.text": Pair({"text": {"format": {"type": "json_object"}}}),
    "responses._Asked.reasoning": Pair({"reasoning": {"effort": "high"}}),
    "responses._Asked.include": Pair({"include": ["message.output_text.logprobs"]}),
    "responses._Asked.max_tool_calls": Pair({"max_tool_calls": 2}),
    "responses._Asked.top_logprobs": Pair({"top_logprobs": 2}),
    "responses._Asked.truncation": Pair({"truncation": "auto"}),
    "responses._Asked.user": Pair({"user": "u-1"}),
    "responses._Asked.previous_response_id": Pair({"previous_response_id": "resp_1"}),
    "responses._Asked.conversation": Pair({"conversation": "conv_1"}),
    "responses._Asked.prompt": Pair({"prompt": {"id": "pmpt_1"}}),
    "responses._Tool.type": Pair({"tools": [*flat()["tools"], {"type": "web_search"}]}, flat()),
    "responses._Tool.name": Pair(flat(name="g"), flat()),
    "responses._Tool.description": Pair(flat(description="does"), flat()),
    "responses._Tool.parameters": Pair(flat(parameters={"type": "object", "properties": {"b": {}}}), flat()),
    "responses._Tool.strict": Pair(flat(strict=True), flat()),
    "responses._ToolChoice.type": Pair({**flat(), "tool_choice": {"type": "web_search"}}, flat()),
    "responses._ToolChoice.name": Pair({**flat(), "tool_choice": {"type": "function", "name": "f"}}, flat()),
    "responses._ToolChoice.mode": Pair({**flat(), "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, flat()),
    "responses._ToolChoice.tools": Pair(
        {**flat(), "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": flat()["tools"]}}, flat()
    ),
    "responses._TextWish.format": Pair({"text": {"format": {"type": "json_object"}}}),
    "responses._TextWish.verbosity": Pair({"text": {"verbosity": "low"}}),
    "responses._Format.type": Pair({"text": {"format": {"type": "grammar"}}}),
    "responses._Format.name": Pair(formed(name="other"), formed()),
    "responses._Format.schema": Pair(formed(schema={"type": "object"}), formed()),
    "responses._Format.description": Pair(formed(description="what it is"), formed()),
    "responses._Format.strict": Pair(formed(strict=True), formed()),
    "responses._Reasoning.effort": Pair({"reasoning": {"effort": "high"}}),
    "responses._Reasoning.mode": Pair({"reasoning": {"mode": "pro"}}),
    "responses._Reasoning.context": Pair({"reasoning": {"context": "all_turns"}}),
    "responses_reading.Item.type": Pair(items({"type": "item_reference", "id": "msg_1"}), items()),
    "responses_reading.Item.role": Pair(items({"role": "developer", "content": "be"}), items()),
    "responses_reading.Item.content": Pair({"input": [{"role": "user", "content": "ho"}]}),
    "responses_reading.Item.call_id": Pair(run(call_id="c2"), run()),
    "responses_reading.Item.name": Pair(run(name="g"), run()),
    "responses_reading.Item.arguments": Pair(run(arguments='{"a":1}'), run()),
    "responses_reading.Item.output": Pair(run("2"), run()),
    "responses_reading.Item.summary": Pair(thought(summary=[{"type": "summary_text", "text": "hm"}]), thought()),
    "responses_reading.Item.encrypted_content": Pair(thought(encrypted_content="gAAAA"), thought()),
    "responses_reading.Item.phase": Pair(
        items({"role": "assistant", "content": "a", "phase": "commentary"}), items({"role": "assistant", "content": "a"})
    ),
    "responses_reading._Part.type": Pair(part(type="input_text", text="more"), part(type="input_text", text="")),
    "responses_reading._Part.text": Pair(part(type="input_text", text="more"), part(type="input_text", text="")),
    "responses_reading._Part.refusal": Pair(items({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}), items()),
    "responses_reading._Part.image_url": Pair(part(type="input_image", image_url=PNG), part(type="input_text", text="")),
    "responses_reading._Part.detail": Pair(part(type="input_image", image_url=PNG, detail="low"), part(type="input_image", image_url=PNG)),
    "responses_reading._Part.file_id": Pair(part(type="input_file", file_id="files/a"), part(type="input_text", text="")),
    "responses_reading._Part.file_data": Pair(part(type="input_file", file_data=PDF), part(type="input_text", text="")),
    "responses_reading._Part.file_url": Pair(part(type="input_file", file_url="https://a.test/b.pdf"), part(type="input_text", text="")),
    "responses_reading._Part.filename": Pair(
        part(type="input_file", file_data=PDF, filename="report.pdf"), part(type="input_file", file_data=PDF)
    ),
    "responses_reading._Part.input_audio": Pair(
        part(type="input_audio", input_audio={"data": "aGk=", "format": "wav"}), part(type="input_text", text="")
    ),
    "responses_reading._Audio.data": Pair(
        part(type="input_audio", input_audio={"data": "aGk=", "format": "wav"}), part(type="input_text", text="")
    ),
    "responses_reading._Audio.format": Pair(
        part(type="input_audio", input_audio={"data": "aGk=", "format": "mp3"}), part(type="input_text", text="")
    ),
}

COMPLETIONS: dict[str, Pair] = {
    "completions._Body.model": Pair({"model": "alias"}),
    "completions._Body.prompt": Pair({"prompt": "ho"}),
    "completions._Body.stream": Pair({"stream": True}),
    "completions._Body.stream_options": Pair({"stream": True, "stream_options": {"include_usage": True}}),
    "openai_fields.StreamOptions.include_usage": Pair({"stream": True, "stream_options": {"include_usage": True}}),
    "completions._Body.max_tokens": Pair({"max_tokens": 7}),
    "completions._Body.temperature": Pair({"temperature": 0.5}),
    "completions._Body.top_p": Pair({"top_p": 0.5}),
    "completions._Body.n": Pair({"n": 2}),
    "completions._Body.best_of": Pair({"best_of": 2}),
    "completions._Body.stop": Pair({"stop": "x"}),
    "completions._Body.seed": Pair({"seed": 3}),
    "completions._Body.presence_penalty": Pair({"presence_penalty": 0.5}),
    "completions._Body.frequency_penalty": Pair({"frequency_penalty": 0.5}),
    "completions._Body.echo": Pair({"echo": True}),
    "completions._Body.logprobs": Pair({"logprobs": 1}),
    "completions._Body.suffix": Pair({"suffix": "end"}),
    "completions._Body.user": Pair({"user": "u-1"}),
}

GENERATE: dict[str, Pair] = {
    "generate._Body.prompt": Pair({"prompt": "ho"}),
    "generate._Body.model": Pair({"model": "alias"}),
    "generate._Body.max_tokens": Pair({"max_tokens": 7}),
    "generate._Body.temperature": Pair({"temperature": 0.5}),
    "generate._Body.stream": Pair({"stream": True}),
}
