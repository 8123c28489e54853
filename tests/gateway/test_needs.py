"""What a request needs of a model, by its body in each dialect."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.doors import anthropic_messages, embeddings, openai_chat, responses
from gateway.needs import needs_of

_TOOL = {"type": "function", "function": {"name": "f"}}
_PNG = "data:image/png;base64,AA=="


def chat(content: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


@pytest.mark.parametrize(
    ("door", "body", "needs"),
    [
        (openai_chat, chat(), ()),
        (openai_chat, chat(tools=[_TOOL]), ("tools",)),
        (openai_chat, chat(functions=[{"name": "f"}]), ("tools",)),
        (openai_chat, chat(tools=[]), ()),
        (openai_chat, chat(tools=None), ()),
        (openai_chat, chat(response_format={"type": "text"}), ()),
        (openai_chat, chat(response_format={"type": "json_object"}), ("json",)),
        (openai_chat, chat(response_format={"type": "json_schema", "json_schema": {}}), ("json_schema",)),
        (openai_chat, chat(response_format=7), ()),
        (openai_chat, chat([{"type": "image_url", "image_url": {"url": _PNG}}]), ("images",)),
        (openai_chat, chat('a text about "image_url" and "image"'), ()),
        (openai_chat, chat("image"), ()),
        (openai_chat, chat([{"type": "image_url", "image_url": 7}]), ()),
        (
            anthropic_messages,
            chat([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}], max_tokens=9),
            ("images",),
        ),
        (anthropic_messages, chat(max_tokens=9, tools=[{"name": "f", "input_schema": {}}]), ("tools",)),
        (
            responses,
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": _PNG}]}]},
            ("images",),
        ),
        (responses, {"model": "m", "input": "hi", "text": {"format": {"type": "json_schema"}}}, ("json_schema",)),
        (responses, {"model": "m", "input": "hi", "text": {}}, ()),
        (embeddings, {"model": "m", "input": "image"}, ()),
    ],
)
def test_what_is_needed(door: Any, body: dict[str, Any], needs: tuple[str, ...]) -> None:
    assert needs_of(door.parse(msgspec.json.encode(body))) == needs
