"""Conversations that do not fit a model's window: refused, or shortened by whole turns. Counting happens in a thread.

A token is at least one byte, so a body of fewer bytes than the window has tokens fits, and is never counted.
"""

from __future__ import annotations

import asyncio

import msgspec

from core.chat import ChatRequest
from core.config import ModelSpec
from core.errors import ContextTooLong, InvalidRequest
from models_registry.tokens import Count, count_conversation, estimate

# An estimate may be off by this much: it refuses nothing that may fit, and shortens until it fits for sure.
_DOUBT = 0.15
_FIELD = "messages"


class _Turned(msgspec.Struct):
    role: str = ""
    content: str | list[msgspec.Raw] | None = None


class _Block(msgspec.Struct):
    type: str = ""


async def fitted(request: ChatRequest, model: ModelSpec, window: int) -> tuple[ChatRequest, str]:
    """The request as it may be sent, and which messages were left out ("" = none), e.g. "messages[1..4]".

    Raises ContextTooLong where the policy of the model is to refuse, or where even the system prompt and the last turn
    do not fit; InvalidRequest where the messages cannot be told apart. No message is ever cut in two.
    """
    return await asyncio.to_thread(_fitted, request, model, window)


def _fitted(request: ChatRequest, model: ModelSpec, window: int) -> tuple[ChatRequest, str]:
    count = _counted(request, model)
    if count.tokens <= window * (1 if count.exact else 1 + _DOUBT):
        return request, ""
    if not model.truncate or _FIELD not in request.fields:
        raise _too_long(count, model, window)
    try:
        return _shortened(request, model, window, count)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(
            f"The conversation is too long, and cannot be shortened because it is malformed: {exc}.", param=_FIELD
        ) from None


def _counted(request: ChatRequest, model: ModelSpec) -> Count:
    """A dialect that is no conversation (embeddings, say) is estimated by its bytes."""
    try:
        return count_conversation(request.conversation(), model.model_id)
    except InvalidRequest:
        return Count(request.estimated_input_tokens, False)


def _shortened(request: ChatRequest, model: ModelSpec, window: int, count: Count) -> tuple[ChatRequest, str]:
    """Without the oldest turns. A turn begins where the user speaks, so that a tool's call and its result stay together."""
    messages = msgspec.json.decode(request.fields[_FIELD], type=list[msgspec.Raw])
    heads = [msgspec.json.decode(message, type=_Turned) for message in messages]
    starts = [at for at, head in enumerate(heads) if head.role == "user" and not _answers_a_tool(head)]
    room = (window - min(request.max_output_tokens or 0, window // 2)) * (1 if count.exact else 1 - _DOUBT)
    sizes = [estimate(bytes(message).decode()) for message in messages]
    scale = count.tokens / max(1, sum(sizes))
    left_out: set[int] = set()
    for start in starts[1:]:
        left_out |= {at for at in range(start) if heads[at].role not in ("system", "developer")}
        shorter = _without(request, messages, left_out)
        if scale * sum(size for at, size in enumerate(sizes) if at not in left_out) > room * (1 + _DOUBT):
            continue  # far too long still: not worth counting
        count = _counted(shorter, model)
        if count.tokens <= room:
            return shorter, f"{_FIELD}[{min(left_out)}..{max(left_out)}]"
    raise _too_long(count, model, window)


def _answers_a_tool(head: _Turned) -> bool:
    """Anthropic's clients give tool results in the user's name."""
    blocks = head.content if isinstance(head.content, list) else []
    return any(msgspec.json.decode(block, type=_Block).type == "tool_result" for block in blocks)


def _without(request: ChatRequest, messages: list[msgspec.Raw], left_out: set[int]) -> ChatRequest:
    kept = msgspec.Raw(msgspec.json.encode([message for at, message in enumerate(messages) if at not in left_out]))
    return msgspec.structs.replace(request, fields={**request.fields, _FIELD: kept}, _conversation=None)


def _too_long(count: Count, model: ModelSpec, window: int) -> ContextTooLong:
    about = "" if count.exact else "about "
    sentence = f"The conversation has {about}{count.tokens} tokens; the model {model.alias!r} takes {window}. Shorten it."
    return ContextTooLong(sentence, param=_FIELD)
