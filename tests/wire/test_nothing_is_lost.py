"""Whatever a client's dialect can say reaches the vendor, is refused by name, or is reported: never dropped in silence.

Each sample is a pair of bodies that differ in one field, and the calls that are made of the two are compared. Which fields
there are is read off the structs by which the doors read, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from msgspec import inspect

from core.config import ModelSpec
from core.errors import InvalidRequest
from gateway.doors import (
    anthropic_messages,
    anthropic_reading,
    completions,
    embeddings,
    generate,
    openai_chat,
    openai_reading,
    responses,
)
from gateway.doors.routing_fields import routed
from providers.adapters.registry import adapter_for
from tests.adapters.cast import SECRET, provider
from tests.wire.every_field import ANTHROPIC, COMPLETIONS, GENERATE, OPENAI, RESPONSES, Body, Pair, user

# One row of the registry for each set of quirks, and every vendor with a wire of its own.
KINDS = (
    *("openai", "openai_compatible", "vllm", "deepseek", "qianfan", "dashscope_compatible", "groq", "mistral", "openrouter", "azure"),
    *("anthropic", "gemini", "dashscope"),
)


class Client(NamedTuple):
    dialect: Any
    base: Body
    roots: tuple[type, ...]
    pairs: dict[str, Pair]


CLIENTS = {
    "openai": Client(openai_chat, {"model": "other", **user("hi")}, (openai_chat._Body, openai_reading._Body), OPENAI),
    "anthropic": Client(
        anthropic_messages,
        {"model": "other", "max_tokens": 30000, **user("hi")},
        (anthropic_messages._Body, anthropic_reading._Body, anthropic_reading._Tool),
        ANTHROPIC,
    ),
    "responses": Client(responses, {"model": "other", "input": "hi"}, (responses._Body, responses._Asked), RESPONSES),
    "completions": Client(completions, {"model": "other", "prompt": "hi"}, (completions._Body,), COMPLETIONS),
    "generate": Client(generate, {"model": "other", "prompt": "hi"}, (generate._Body,), GENERATE),
}

# Read twice, once to be checked and once to be understood: the second reading has the sample.
CHECKED_ONLY = ("openai_chat._Message.", "anthropic_messages._Message.")
# What says nothing to a vendor, and why.
SAYS_NOTHING = {
    "openai_chat._Body.model": "the alias: routing's",
    "anthropic_messages._Body.model": "the alias: routing's",
    "responses._Body.model": "the alias: routing's",
    "completions._Body.model": "the alias: routing's",
    "generate._Body.model": "the alias: routing's",
    "openai_messages._ToolCall.index": "left over from a stream; the order of the list says it",
    "responses._Reasoning.summary": "what a vendor shows of its thoughts is given in any case",
    "responses._Asked.stream_options": "how the answer travels; what it holds is looked through",
    "openai_fields.StreamOptions.include_usage": "the reader gives usage or withholds it; every vendor is asked",
    "openai_chat._Body.stream_options": "the reader gives usage or withholds it; every vendor is asked",
    "completions._Body.stream_options": "the reader gives usage or withholds it; every vendor is asked",
    "responses_reading.Item.id": "a name for what is kept nowhere",
    "responses_reading.Item.status": "what is given back is over",
    "openai_reading._Schema.name": "a label; where a wire knows none, the schema alone binds",
    "responses._Format.name": "a label; where a wire knows none, the schema alone binds",
    **{
        f"{door}._Body.cache": "says what our own cache may do"
        for door in ("anthropic_messages", "completions", "generate", "openai_chat", "responses")
    },
    "generate._Body.task_type": "says which model is asked: routing's",
    "generate._Body.models": "says which model is asked: routing's",
    "chat.CacheWish.enabled": "says what our own cache may do",
    "chat.CacheWish.ttl_s": "says what our own cache may do",
    "openai_reading._Schema.strict": "where a wire has no word for it, every schema binds",
    "responses._Format.strict": "where a wire has no word for it, every schema binds",
}


def fields_of(roots: tuple[type, ...]) -> set[str]:
    """module.Class.field of every struct that a reading can reach."""
    found: set[str] = set()
    todo: list[Any] = [inspect.type_info(root) for root in roots]
    known: set[type] = set()
    while todo:
        kind = todo.pop()
        if isinstance(kind, inspect.UnionType):
            todo += kind.types
        elif isinstance(kind, inspect.ListType):
            todo.append(kind.item_type)
        elif isinstance(kind, inspect.Metadata):
            todo.append(kind.type)
        elif isinstance(kind, inspect.StructType) and kind.cls not in known:
            known.add(kind.cls)
            place = f"{kind.cls.__module__.rpartition('.')[2]}.{kind.cls.__name__}."
            found.update(place + field.name for field in kind.fields)
            todo += [field.type for field in kind.fields]
    return found


@pytest.mark.parametrize("name", CLIENTS)
def test_every_field_that_a_door_knows_has_its_sample(name: str) -> None:
    client = CLIENTS[name]
    known = {field for field in fields_of(client.roots) if not field.startswith(CHECKED_ONLY)}
    # A field that two readings share needs one sample.
    sampled = {key.rpartition(".")[2] for key in client.pairs if "._Body." in key or "._Asked." in key}
    missing = known - set(client.pairs) - set(SAYS_NOTHING)
    missing = {key for key in missing if not ("._Body." in key and key.rpartition(".")[2] in sampled)}
    assert missing == set()


class Outcome(NamedTuple):
    sent: tuple[Any, ...]
    dropped: tuple[str, ...] = ()
    refused: str | None = None


def outcome(client: Client, kind: str, body: Body, *, drop: bool) -> Outcome:
    base_url = {"azure": "https://r.openai.azure.com", "openai_compatible": "https://v.test/v1"}.get(kind, "")
    model = ModelSpec("model-1", "alias", "gpt-x", "provider-1", drop_params=drop)
    try:
        request = routed(client.dialect.parse(json.dumps({**client.base, **body}).encode()))
        call = adapter_for(provider(kind, base_url)).chat_call(request, model, SECRET)
    except InvalidRequest as refusal:
        return Outcome((), (), refusal.param or "")
    return Outcome((call.url, sorted(call.headers.items()), call.body), call.dropped)


@pytest.mark.parametrize("drop", [False, True], ids=["refusing", "dropping"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLIENTS)
def test_no_field_is_lost(name: str, kind: str, drop: bool) -> None:
    client = CLIENTS[name]
    lost = []
    for key, pair in client.pairs.items():
        if key in SAYS_NOTHING:
            continue
        before, after = (outcome(client, kind, body, drop=drop) for body in (pair.before, pair.after))
        # Within what is left out with a report, or refused, everything is.
        if (before == after and not before.dropped and not before.refused) or after.refused == "":
            lost.append(key)
    assert lost == []


# Below these the keys are the client's own: any name is right.
FREE = frozenset({"parameters", "schema", "input_schema", "input", "metadata"})


def with_a_strange_key(value: Any) -> Iterator[Any]:
    """Copies of a body, in each of which one object has a key that nobody knows."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict):
        yield {**value, "strange_key": "something"}
    for key, held in inner:
        if key not in FREE or isinstance(held, list):
            for changed in with_a_strange_key(held):
                copied = copy.copy(value)
                copied[key] = changed
                yield copied


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLIENTS)
def test_no_unknown_key_is_lost_however_deep(name: str, kind: str) -> None:
    client = CLIENTS[name]
    lost = []
    for key, pair in client.pairs.items():
        usual = outcome(client, kind, pair.after, drop=True)
        for body in with_a_strange_key(pair.after):
            if usual.refused is None and not usual.dropped and outcome(client, kind, body, drop=True) == usual:
                lost.append(f"{key}: {json.dumps(body)}")
    assert lost == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLIENTS)
def test_the_wish_of_our_cache_goes_to_no_vendor(name: str, kind: str) -> None:
    assert outcome(CLIENTS[name], kind, {"cache": {"ttl_s": 60}}, drop=False) == outcome(CLIENTS[name], kind, {}, drop=False)


@pytest.mark.parametrize("ours", [{"task_type": "translation"}, {"models": ["another"]}], ids=["task_type", "models"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLIENTS)
def test_what_says_which_model_goes_to_no_vendor(name: str, kind: str, ours: dict[str, Any]) -> None:
    assert outcome(CLIENTS[name], kind, ours, drop=False) == outcome(CLIENTS[name], kind, {}, drop=False)


EMBEDDING = Client(
    embeddings,
    {"model": "other", "input": "hi"},
    (embeddings._Body,),
    {
        "embeddings._Body.input": Pair({"input": ["ho", "hi"]}),
        "embeddings._Body.dimensions": Pair({"dimensions": 7}),
        "embeddings._Body.user": Pair({"user": "u-1"}),
        "embeddings._Body.stream": Pair({"stream": True}),
        "a field that nobody knows": Pair({"strange_key": "something"}),
    },
)
# `encoding_format` shapes the answer, which is made here where the vendor's wire is its own.
# `cache` is ours, and no vendor's affair.
EMBEDDING_KNOWN_ELSEWHERE = {"embeddings._Body.model", "embeddings._Body.encoding_format", "embeddings._Body.cache"}


@pytest.mark.parametrize("drop", [False, True], ids=["refusing", "dropping"])
@pytest.mark.parametrize("kind", ["openai", "gemini", "dashscope"])
def test_no_field_of_embeddings_is_lost(kind: str, drop: bool) -> None:
    known = {field for field in fields_of(EMBEDDING.roots) if not field.startswith("chat.CacheWish.")}
    assert known - set(EMBEDDING.pairs) == EMBEDDING_KNOWN_ELSEWHERE
    for key, pair in EMBEDDING.pairs.items():
        assert outcome(EMBEDDING, kind, pair.before, drop=drop) != outcome(EMBEDDING, kind, pair.after, drop=drop), key
    assert outcome(EMBEDDING, kind, {"models": ["x"]}, drop=drop) == outcome(EMBEDDING, kind, {}, drop=drop)


@pytest.mark.parametrize("kind", ["gemini", "dashscope"])
@pytest.mark.parametrize("nothing", [{"user": None}, {"dimensions": None}, {"stream": False}, {"input_type": None}])
def test_a_field_of_embeddings_that_asks_for_nothing_is_no_obstacle(kind: str, nothing: Body) -> None:
    assert outcome(EMBEDDING, kind, nothing, drop=False) == outcome(EMBEDDING, kind, {}, drop=False)


def test_the_list_of_fields_is_not_short_by_accident() -> None:
    known = fields_of(CLIENTS["anthropic"].roots)
    assert {"anthropic_blocks._Source.file_id", "anthropic_reading._Tool.strict"} <= known
