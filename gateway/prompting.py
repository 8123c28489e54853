"""`prompt: {"id", "version", "variables"}` in a body: a template's messages take its place, before anything else looks at the request.

All in memory, and only for bodies that name one. What a template may be: `models_registry.prompts`; how it is filled in:
`models_registry.prompt_building`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from core.chat import ChatRequest
from core.config import CallerSpec, Snapshot
from core.errors import BodyTooLarge, InvalidRequest, UnknownPrompt
from core.prompts import PromptSpec, PromptUse, PromptVersionSpec
from gateway.admission import require_scope
from gateway.doors.fields import invalid
from gateway.router import View, open_targets
from models_registry.prompt_building import Said, build

_SHOWN = 20
_BYTES_PER_TOKEN = 3


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    version: Annotated[int, msgspec.Meta(ge=1)] | Annotated[str, msgspec.Meta(min_length=1, max_length=60)] | None = None
    variables: dict[str, msgspec.Raw] | None = None


_asked = msgspec.json.Decoder(_Asked).decode
_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode


def expand(request: ChatRequest, view: View, caller: CallerSpec, max_bytes: int) -> None:
    """Puts the template's messages before the request's own. They may be as long as a body may be.

    Raises InvalidRequest, UnknownPrompt, NotPermitted, ContextTooLong, BodyTooLarge.
    """
    require_scope(caller, request.dialect.SCOPE)
    template, request.template = request.template, None
    assert template is not None
    asked = _read(template)
    spec, version = _found(view.snapshot, caller, asked)
    rest_bytes = request.body_bytes - len(bytes(template))
    built = build(version, asked.variables or {}, _room(request, view, caller, rest_bytes), max_bytes)
    before = _size(request)
    getattr(request.dialect, "put_prompt", put_before)(request.fields, built.messages)
    request.body_bytes = rest_bytes + _size(request) - before
    if request.body_bytes > max_bytes:
        raise BodyTooLarge(f"With its prompt the request has {request.body_bytes} bytes; the limit is {max_bytes} (LLM_MAX_BODY_BYTES).")
    request.prompt = PromptUse(spec.name, version.number, built.left_out)


def check(template: Mapping[str, Any]) -> None:
    """Whether it has the form of one that names a template, now or later. Raises InvalidRequest."""
    _read(_raw(template))


def look_up(template: Mapping[str, Any], view: View, caller: CallerSpec) -> None:
    """Raises InvalidRequest, UnknownPrompt."""
    _found(view.snapshot, caller, _read(_raw(template)))


def put_before(fields: dict[str, msgspec.Raw], said: Sequence[Said | msgspec.Raw]) -> None:
    """Where a dialect has all messages in one list."""
    own = _messages(fields["messages"]) if "messages" in fields else []
    fields["messages"] = msgspec.Raw(msgspec.json.encode([*said, *own]))


def _raw(template: Mapping[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(template))


def _read(template: msgspec.Raw) -> _Asked:
    try:
        return _asked(template)
    except msgspec.ValidationError as refused:
        error = invalid(str(refused))
        error.param = f"prompt.{error.param}" if error.param else "prompt"
        raise InvalidRequest(f"prompt: {error.message}", param=error.param) from None
    except msgspec.DecodeError as refused:
        raise InvalidRequest(f"prompt: {refused}.", param="prompt") from None
    except RecursionError:
        raise InvalidRequest("prompt: it is nested too deeply.", param="prompt") from None


def _found(snapshot: Snapshot, caller: CallerSpec, asked: _Asked) -> tuple[PromptSpec, PromptVersionSpec]:
    """A template that is not open to the caller is answered as one that is not there."""
    spec = snapshot.prompts.get(asked.id)
    if spec is None or spec.id in caller.hidden_prompts:
        raise UnknownPrompt(f"The prompt {asked.id!r} does not exist, or is switched off; ask an administrator.", param="prompt")
    version = spec.version(asked.version)
    if version is None:
        there = ", ".join([*map(str, sorted(spec.versions, reverse=True)[:_SHOWN]), *spec.labels])
        raise UnknownPrompt(f"The prompt {asked.id!r} has no version {asked.version!r}; it has {there or 'none'}.", param="prompt")
    return spec, version


def _room(request: ChatRequest, view: View, caller: CallerSpec, rest_bytes: int) -> int | None:
    """Tokens that the smallest window behind the model leaves, beside the answer and the rest of the body. None = not known."""
    window = min((target.window for target in open_targets(view, caller, request.model) if target.window), default=0)
    return window - min(request.max_output_tokens or 0, window // 2) - rest_bytes // _BYTES_PER_TOKEN if window else None


def _size(request: ChatRequest) -> int:
    return sum(len(bytes(value)) for value in request.fields.values())
