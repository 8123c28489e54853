"""What a request says of itself is written down, wherever it says so, and never a reason to refuse it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.doors import anthropic_messages, openai_chat
from gateway.labels import labels_of
from monitoring.journal import AttemptOpened, RequestEnded
from tests.gateway.scripted import ANSWER, Bench
from tests.gateway.test_door import AUTH, Client

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({}, ("", "", "")),
        ({"user": "ann"}, ("ann", "", "")),
        ({"user": "x" * 300}, ("x" * 200, "", "")),
        ({"user": "a\0b"}, ("ab", "", "")),
        ({"user": ""}, ("", "", "")),
        ({"metadata": {"tag": "team:nightly/2.0_b-c"}}, ("", "", "team:nightly/2.0_b-c")),
        ({"metadata": {"user_id": "bob", "tag": "x" * 60}}, ("bob", "", "x" * 60)),
        ({"metadata": {"tag": "x" * 61}}, ("", "", "")),
        ({"metadata": {"tag": "two words"}}, ("", "", "")),
        ({"metadata": {"tag": "(other)"}}, ("", "", "")),
        ({"metadata": {"tag": "line\n"}}, ("", "", "")),
        ({"metadata": {"tag": 7}}, ("", "", "")),
        ({"metadata": None}, ("", "", "")),
        ({"metadata": [1]}, ("", "", "")),
    ],
)
@pytest.mark.parametrize("dialect", [openai_chat, anthropic_messages])
def test_labels_in_bodies(dialect: Any, fields: dict[str, Any], labels: tuple[str, str, str]) -> None:
    assert labels_of(dialect.parse(msgspec.json.encode({**BODY, **fields}))) == labels


@pytest.mark.parametrize(
    ("header", "fields", "tag"),
    [(b"nightly", {}, "nightly"), (b"nightly", {"metadata": {"tag": "other"}}, "nightly"), (b"\xff", {}, ""), (b"", {"user": "ann"}, "")],
)
async def test_the_header_comes_first(monkeypatch: pytest.MonkeyPatch, header: bytes, fields: dict[str, Any], tag: str) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"] = [ANSWER]
    client = await Client(msgspec.json.encode({**BODY, **fields}), headers=(AUTH, (b"x-llm-tag", header))).call(bench.door)
    assert client.status == 200
    for kind in (AttemptOpened, RequestEnded):
        (record,) = bench.sink.of(kind)
        assert (record.end_user, record.tag) == (fields.get("user", ""), tag)


async def test_a_refused_request_has_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    body = msgspec.json.encode({**BODY, "model": "unknown", "user": "ann"})
    assert (await Client(body).call(bench.door)).status == 404
    assert bench.sink.of(RequestEnded)[0].end_user == "ann"
