"""A request that was kept, as the playground asks it again: in OpenAI's chat dialect, whatever dialect it came in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec

from core.chat import ChatRequest
from core.config import ModelSpec
from core.errors import InvalidRequest, ProviderNonsense
from gateway.doors import anthropic_messages, completions, generate, openai_chat, responses
from providers.adapters.openai_request import to_wire
from providers.adapters.quirks import Quirks
from providers.adapters.sse import SseDecoder
from providers.adapters.translated import Leftovers

_DIALECTS: Final = {dialect.NAME: dialect for dialect in (openai_chat, anthropic_messages, responses, completions, generate)}
# How it was answered then, and on whose behalf: the playground says both anew.
_NOT_ASKED_AGAIN: Final = frozenset({"model", "models", "stream", "stream_options", "n", "user", "metadata", "store", "task_type"})
_TAKES_TOP_K: Final = Quirks(extensions=frozenset({"top_k"}))
_ANY_MODEL: Final = ModelSpec(id="", alias="", model_id="", provider_id="", drop_params=True)


class Asked(NamedTuple):
    """`messages` stand between the instructions (`system`) and the last question (`prompt`), `fields` are what else the body says;
    `left_out` names what has no place in OpenAI's dialect."""

    system: str
    messages: list[dict[str, Any]]
    prompt: str
    fields: dict[str, Any]
    left_out: tuple[str, ...]


def asked(dialect: str, body: bytes) -> Asked:
    """Raises InvalidRequest."""
    if dialect not in _DIALECTS:
        raise InvalidRequest(f"The playground asks chat models, and this was no request to one: {dialect or 'unknown'}.")
    request = cast(ChatRequest, _DIALECTS[dialect].parse(body))
    left_out: tuple[str, ...] = ()
    if dialect == openai_chat.NAME:
        known = _loaded(body)
    elif request.template is not None:
        raise InvalidRequest("It fills in a prompt template, which is asked again only where it came as an OpenAI chat request.")
    else:
        conversation = request.conversation()
        leftovers = Leftovers(conversation, _ANY_MODEL, "OpenAI's dialect")
        known = _loaded(msgspec.json.encode(to_wire(conversation, _ANY_MODEL, leftovers, _TAKES_TOP_K)))
        left_out = leftovers.names
    messages = known.pop("messages", [])
    system = messages.pop(0)["content"] if messages and _is_text(messages[0], "system", "developer") else ""
    prompt = messages.pop()["content"] if messages and _is_text(messages[-1], "user") else ""
    fields = {name: value for name, value in known.items() if name not in _NOT_ASKED_AGAIN and value is not None}
    return Asked(system, messages, prompt, fields, left_out)


def _loaded(body: bytes) -> dict[str, Any]:
    """The doors leave values alone that Python cannot hold, such as numbers of five thousand digits."""
    try:
        return dict(json.loads(body))
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"A value in the body cannot be shown: {exc}.") from None


def _is_text(message: Mapping[str, Any], *roles: str) -> bool:
    """Nothing but text, so that it can be edited as such."""
    return message.get("role") in roles and isinstance(message.get("content"), str) and message.keys() <= {"role", "content"}


def answered(body: bytes) -> str:
    """The words of an answer in any of our dialects, streamed or whole, as far as they were kept; as it is where it has none."""
    whole = body.decode(errors="replace")
    return "".join(piece for event in _events(body) for piece in _words(event)) or whole


def _events(body: bytes) -> Iterable[Any]:
    try:
        events = [body] if body.lstrip()[:1] == b"{" else SseDecoder().feed(body)
    except ProviderNonsense:
        return
    for event in events:
        try:
            yield json.loads(event)
        except ValueError:
            continue  # the end mark, or where it was cut


def _words(event: Any) -> Iterable[str]:
    """By the places at which the dialects have them: of several answers the first, and nothing of what a stream's end repeats."""
    if not isinstance(event, dict):
        return
    for choice in _dicts(event.get("choices"))[:1]:
        for said in (choice, *_dicts([choice.get("delta"), choice.get("message")])):
            yield from _texts(said, "content", "text", "refusal")
    if event.get("type") in (None, "response.output_text.delta", "response.refusal.delta"):
        yield from _texts(event, "delta", "text")
    yield from (word for said in _dicts([event.get("delta")]) for word in _texts(said, "text"))
    for said in (event, *_dicts(event.get("output"))):
        yield from (word for part in _dicts(said.get("content")) for word in _texts(part, "text", "refusal"))
    yield from (word for error in _dicts([event.get("error")]) for word in _texts(error, "message"))


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _texts(said: Mapping[str, Any], *names: str) -> Iterable[str]:
    return (said[name] for name in names if isinstance(said.get(name), str))
