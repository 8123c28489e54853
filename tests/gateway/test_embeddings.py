from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.events import Ended, Result
from gateway.doors import embeddings

GOOD = {"model": "m", "input": "hi"}


def parse(**changes: Any) -> Any:
    return embeddings.parse(json.dumps({**GOOD, **changes}).encode())


@pytest.mark.parametrize("given", ["hi", ["a", "b"], [1, 2, 3], [[1], [2, 3]], ""])
def test_texts_and_tokens_travel_on_as_sent(given: Any) -> None:
    request = parse(input=given, encoding_format="base64", dimensions=8, user="u", brand_new={"x": 1})
    assert json.loads(bytes(request.fields["input"])) == given
    assert bytes(request.fields["brand_new"]) == b'{"x": 1}'
    assert (request.model, request.stream, request.dialect.NAME, request.dialect.SCOPE) == ("m", False, "embeddings", "embeddings")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": None}, "input"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"input": [[1], 2]}, "input[1]"),
        ({"input": [{"text": "a"}]}, "input[0]"),
        ({"input": [None]}, "input[0]"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"model": ""}, "model"),
        ({"stream": True}, "stream"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**changes)
    assert refused.value.param == param


def test_a_chat_model_cannot_embed() -> None:
    request = parse()
    for use in (
        lambda: embeddings.conversation(request.fields),
        lambda: embeddings.whole(request, Result([], Ended("stop"))),
        lambda: embeddings.stream_writer(request),
    ):
        with pytest.raises(InvalidRequest, match="offers no embeddings endpoint") as refused:
            use()
        assert refused.value.param == "model"
