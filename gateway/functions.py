"""`@llm_function`: a typed, documented async function without a body, which a model answers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar, get_type_hints

import msgspec

from core.errors import ProviderNonsense

_P = ParamSpec("_P")
_T = TypeVar("_T")
_R = TypeVar("_R", bound="_Said", covariant=True)
_TRIES = 2
_encode = msgspec.json.Encoder(enc_hook=str).encode


class _Said(Protocol):
    @property
    def text(self) -> str: ...


class Decoder(Protocol):
    def decode(self, text: str, /) -> Any:
        """Raises msgspec.DecodeError."""
        ...


class _Model(Protocol[_R]):
    async def chat(self, messages: Any, **options: Any) -> _R: ...


def llm_function(llm: _Model[_Said], **options: Any) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Awaitable[_T]]]:
    """The docstring is the task, the arguments are the data, the annotation of what is returned is the shape of the answer.

    An answer of another shape is shown to the model once more, with what is wrong with it; then ProviderNonsense is raised.
    `options` are those of `Llm.chat`. Raises TypeError where the function has no docstring or its return type is none of JSON's.
    """

    def made(function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        task = _Task(function)

        @functools.wraps(function)
        async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            answer: _T = await task.run(llm, task.data(args, kwargs), options)
            return answer

        return call

    return made


class _Task:
    """What can be known of a function before it is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        text = inspect.getdoc(function)
        returns = get_type_hints(function).get("return")
        if not text or returns is None:
            raise TypeError(f"{function.__name__} needs a docstring, the task, and a return type, the shape of the answer")
        self._name = function.__name__
        self._signature = inspect.signature(function)
        # Models answer with objects more reliably than with bare values, and some vendors take no other schema.
        self._bare = _is_bare(returns)
        self._decoder = msgspec.json.Decoder(_boxed(returns) if self._bare else returns)
        schema = msgspec.json.schema(_boxed(returns) if self._bare else returns)
        self._instructions = (
            f"{text}\n\nThe user's message is a JSON object with the data. Answer with one JSON value of this schema and nothing else:\n"
            f"{_encode(schema).decode()}"
        )

    def data(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Raises TypeError, as the function itself would."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return _encode(bound.arguments).decode()

    async def run(self, llm: _Model[_Said], data: str, options: dict[str, Any]) -> Any:
        messages = [{"role": "system", "content": self._instructions}, {"role": "user", "content": data}]
        _, found = await shaped(llm, messages, self._decoder, self._name, options)
        return found.value if self._bare else found


async def shaped(
    llm: _Model[_R], messages: list[dict[str, str]], decoder: Decoder, name: str, options: Mapping[str, Any]
) -> tuple[_R, Any]:
    """(the model's last reply, what it says in the decoder's type). An answer of another shape is shown to the model once more.

    Raises ProviderNonsense, and what `chat` raises.
    """
    asked, wrong, text = messages, "", ""
    for _ in range(_TRIES):
        reply = await llm.chat(asked, **options)
        text = reply.text
        try:
            return reply, decoder.decode(unfenced(text))
        except msgspec.DecodeError as exc:
            wrong = str(exc)
        asked = [
            *messages,
            {"role": "assistant", "content": text},
            {"role": "user", "content": f"That does not fit the schema: {wrong}. Answer once more, with the JSON alone."},
        ]
    raise ProviderNonsense(f"The answer to {name} does not have the shape of its return type: {wrong}.", detail=text[:512])


def unfenced(text: str) -> str:
    """Without the marks of a code block, which many models put around JSON whatever they are told."""
    text = text.strip()
    if not (text.startswith("```") and text.endswith("```") and "\n" in text):
        return text
    return text[text.index("\n") + 1 : -3].strip()


def _is_bare(returns: Any) -> bool:
    """Whether the answer would be something else than a JSON object."""
    try:
        schema = msgspec.json.schema(returns)
    except TypeError as exc:
        raise TypeError(f"the return type {returns!r} is none that JSON can say: {exc}") from None
    return "$ref" not in schema and schema.get("type") != "object"


def _boxed(returns: Any) -> Any:
    return msgspec.defstruct("Answer", [("value", returns)])
