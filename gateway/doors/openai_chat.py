"""OpenAI's chat dialect: request bodies in, error bodies and stream ends out."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from core.chat import ChatRequest
from core.errors import GatewayError, InvalidRequest

NAME = "openai"
DONE = b"data: [DONE]\n\n"
_MAX_TOKENS = 10_000_000
_RESERVED = ("task_type", "models", "prompt", "cache")

_Tokens = Annotated[int, msgspec.Meta(ge=1, le=_MAX_TOKENS)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class _Message(msgspec.Struct):
    role: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    content: str | list[msgspec.Raw] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Body(msgspec.Struct):
    """What we read or check. Everything else travels on untouched, for the vendor to judge."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=2000)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    tools: Annotated[list[dict[str, msgspec.Raw]], msgspec.Meta(max_length=1024)] | None = None
    user: str | None = None


_checked = msgspec.json.Decoder(_Body)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_true, _with_usage = msgspec.Raw(b"true"), msgspec.Raw(b'{"include_usage":true}')


def parse(body: bytes, *, force_stream: bool = False) -> ChatRequest:
    """Raises InvalidRequest with the offending field in `param`. `force_stream`: whatever the body says, stream with usage."""
    try:
        body.decode()  # the decoder skips values that travel on, and would let broken UTF-8 through to the vendor
        checked = _checked.decode(body)
        fields = _fields.decode(body)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}.") from None
    except RecursionError:
        raise InvalidRequest("The JSON of the body is nested too deeply.") from None
    for name in _RESERVED:
        if name in fields:
            raise InvalidRequest(f"{name!r} is not supported by this endpoint yet; leave it out.", param=name)
    if force_stream:
        fields["stream"] = _true
        fields["stream_options"] = _with_usage
    return ChatRequest(
        dialect=NAME,
        model=checked.model,
        stream=force_stream or bool(checked.stream),
        wants_usage=force_stream or (checked.stream_options is not None and checked.stream_options.include_usage),
        max_output_tokens=checked.max_completion_tokens or checked.max_tokens,
        body_bytes=len(body),
        fields=fields,
    )


_AT = re.compile(r" - at `\$\.?(.*?)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")


def _invalid(message: str) -> InvalidRequest:
    """msgspec's sentence, with the path that it names moved to `param`."""
    at, missing = _AT.search(message), _MISSING.search(message)
    path = at.group(1) if at else ""
    if missing:
        path = f"{path}.{missing.group(1)}" if path else missing.group(1)
    text = _AT.sub("", message)
    return InvalidRequest(f"{path}: {text}." if path else f"{text}.", param=path or None)


def error_value(error: GatewayError) -> dict[str, Any]:
    """All four keys, always: clients read each of them."""
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def error_body(error: GatewayError) -> bytes:
    return msgspec.json.encode({"error": error_value(error)})


def stream_error(error: GatewayError) -> bytes:
    """The last event of a stream that failed: no end mark follows it."""
    return b"data: " + error_body(error) + b"\n\n"
