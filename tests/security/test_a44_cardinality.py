"""A44: no number of distinct models, users, keys and paths makes metrics or caches grow."""

from __future__ import annotations

import asyncio
import gc

import msgspec
import pytest
from django.test import Client as SiteClient
from prometheus_client import REGISTRY

from gateway.doors.http import GenerationDoor
from gateway.doors.models import ModelsDoor
from gateway.doors.probes import Unknown
from llmcontrol.http_answer import _FORMS_KEPT, _form
from tests.gateway.scripted import ANSWER, Bench
from tests.gateway.test_door import AUTH, Client

ROUNDS = 25_000  # four ways: 100 000 distinct names


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def series() -> int:
    return sum(len(family.samples) for family in REGISTRY.collect())


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def _round(bench: Bench, door: GenerationDoor, number: int) -> None:
    """One of each: a model, a user, a wrong key and a path that nobody has named before."""
    named = msgspec.json.encode({"model": f"no-such-{number}", "messages": [{"role": "user", "content": "hi"}]})
    assert (await Client(named).call(door)).status == 404
    bench.scripts["a"] = [ANSWER]
    bench.sink.records.clear()
    bench.responses.clear()
    user = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], "user": f"user-{number}"})
    assert (await Client(user, headers=(AUTH, (b"x-%d" % number, b"1"))).call(door)).status == 200
    stranger = (b"authorization", b"Bearer sk-llmc-%d" % number)
    assert (await Client(headers=(stranger,)).call(door)).status == 401
    elsewhere = Client(method="GET")
    elsewhere.scope["path"] = f"/v1/nothing/{number}"
    await Unknown(door._gateway)(elsewhere.scope, elsewhere.receive, elsewhere.send)
    assert elsewhere.status == 404
    await asyncio.sleep(0)  # the loop forgets its cancelled timers when it turns


async def test_a_hundred_thousand_names_leave_no_trace_in_memory(bench: Bench) -> None:
    door = bench.door
    for number in range(200):  # what is made once is made
        await _round(bench, door, -number)
    before, held = series(), objects()
    for number in range(ROUNDS):
        await _round(bench, door, number)
    assert series() == before
    assert objects() - held < 1000


async def test_names_of_models_in_urls_are_kept_nowhere(bench: Bench) -> None:
    door, before = ModelsDoor(bench.door._gateway), series()
    for number in range(2000):
        client = Client(method="GET")
        client.scope |= {"path": f"/v1/models/m-{number}", "url_route": {"args": (), "kwargs": {"alias": f"m-{number}"}}}
        await door(client.scope, client.receive, client.send)
        assert client.status == 404
    assert series() == before


@pytest.mark.django_db
def test_the_control_planes_metrics_name_views_and_not_paths() -> None:
    client = SiteClient(raise_request_exception=False)
    for path in ("/admin/login/", "/nothing/0", "/api/v1/nothing"):
        client.get(path)
        client.generic("XYZ0", path)
    before = series()
    for number in range(50):
        client.get(f"/nothing/{number}")
        client.get(f"/admin/providers/provider/{number}/change/")
        client.generic(f"XYZ{number}", "/admin/login/")
        client.get("/admin/login/", headers={"User-Agent": f"agent-{number}", "Accept": f"text/x{number}"})
    assert series() - before < 100


def test_names_of_headers_are_kept_within_a_bound() -> None:
    for number in range(5000):
        _form((b"x-%d" % number,))
    assert _form.cache_info().currsize <= _FORMS_KEPT
