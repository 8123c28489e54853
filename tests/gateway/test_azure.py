"""The Azure door: the URL names the model."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from gateway.doors import openai_chat
from gateway.doors.answer import DoorDialect
from gateway.doors.azure import AzureDoor, with_model
from gateway.doors.http import Gateway
from monitoring.journal import RequestEnded
from tests.gateway.scripted import ANSWER, KEY, PEPPER, Bench
from tests.gateway.test_door import Client

MESSAGES = [{"role": "user", "content": "é"}]


async def ask(bench: Bench, body: bytes, alias: str = "m") -> Client:
    gateway = Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline)
    client = Client(body, headers=((b"api-key", KEY.encode()),), query=b"api-version=2024-10-21")
    client.scope["url_route"] = {"args": (), "kwargs": {"alias": alias}}
    await AzureDoor(gateway, cast(DoorDialect, openai_chat))(client.scope, client.receive, client.send)
    return client


@pytest.mark.parametrize("model", [{}, {"model": "m"}, {"model": "something else"}])
async def test_the_model_is_the_deployment(monkeypatch: pytest.MonkeyPatch, model: dict[str, Any]) -> None:
    bench = Bench(monkeypatch)
    bench.scripts["a"] = [ANSWER]
    client = await ask(bench, json.dumps({**model, "messages": MESSAGES}).encode())
    assert client.sent[0]["status"] == 200
    (ended,) = bench.sink.of(RequestEnded)
    assert (ended.alias, ended.dialect) == ("m", "openai")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"messages":"\xff"}', b"[" * 900, b'{"messages":7}'])
async def test_what_cannot_be_read_is_refused_as_ever(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    client = await ask(Bench(monkeypatch), body)
    assert client.sent[0]["status"] == 400
    assert json.loads(client.sent[1]["body"])["error"]["type"] == "invalid_request_error"


async def test_an_unknown_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await ask(Bench(monkeypatch), json.dumps({"messages": MESSAGES}).encode(), alias="gone")
    assert client.sent[0]["status"] == 404
    assert json.loads(client.sent[1]["body"])["error"]["code"] == "model_not_found"


def test_other_fields_keep_their_bytes() -> None:
    assert with_model(b'{"seed":12345678901234567890, "model": "x", "new":{"a":[1, 2]}}', "é/m") == (
        '{"seed":12345678901234567890,"model":"é/m","new":{"a":[1, 2]}}'.encode()
    )
