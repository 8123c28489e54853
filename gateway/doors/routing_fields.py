"""`task_type` and `models`: two fields of ours in every dialect's body, about which model answers. They do not travel on."""

from __future__ import annotations

from typing import Annotated

import msgspec

from core.chat import ChatRequest
from core.choice import MAX_TASK_TYPE, is_task_type
from core.errors import InvalidRequest
from gateway.doors.fields import ModelName

MAX_FALLBACKS = 10

_names = msgspec.json.Decoder(Annotated[list[ModelName], msgspec.Meta(max_length=MAX_FALLBACKS)] | None)
_text = msgspec.json.Decoder(str | None)


def routed(request: ChatRequest) -> ChatRequest:
    """The same request, with what the two fields say. Raises InvalidRequest that names one of them."""
    fields = request.fields
    if "task_type" in fields:
        request.task_type = _task_type(fields.pop("task_type"))
    if "models" in fields:
        request.fallbacks = _fallbacks(fields.pop("models"))
    return request


def _task_type(raw: msgspec.Raw) -> str:
    try:
        name = _text.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        name = "?"
    if name and not is_task_type(name):
        sentence = f"task_type: write 1 to {MAX_TASK_TYPE} letters, digits and . _ : / -, the first a letter or digit."
        raise InvalidRequest(sentence, param="task_type")
    return name or ""


def _fallbacks(raw: msgspec.Raw) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(_names.decode(raw) or ()))
    except (msgspec.MsgspecError, RecursionError):
        sentence = f"models: write a list of up to {MAX_FALLBACKS} names of models, tried after `model` one after the other."
        raise InvalidRequest(sentence, param="models") from None
