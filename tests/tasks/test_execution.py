"""One attempt: what the model is asked, what of its answers is believed, and which failures come again."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from core.chat import Answer
from core.conversation import Text
from core.errors import InvalidRequest, NotAuthenticated, ProviderFault, ProviderRejectedOurKey
from core.events import Ended, Result
from gateway.cache import Cache
from gateway.doors.http import Gateway
from monitoring.journal import RequestEnded
from tasks import execution
from tasks.execution import Runner
from tasks.kinds import KINDS
from tasks.models import Task
from tasks.service import read
from tasks.states import Status
from tests.gateway.scripted import PEPPER, USAGE, Bench
from tests.gateway.test_prompts import PromptBench

KEY_ID = "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0002"
DATA: dict[str, dict[str, Any]] = {
    "semantic_analysis": {"text": "x"},
    "data_cleaning": {"records": [{"a": 1}]},
    "category_match": {"text": "x", "categories": ["a"]},
    "text_summarization": {"text": "x"},
    "translation": {"text": "x", "target_language": "Chinese"},
    "financial_analysis": {"text": "x"},
    "code_generation": {"specification": "x"},
    "data_extraction": {"text": "x", "fields": ["a"]},
    "custom": {},
}


def task(kind: str = "custom", **fields: Any) -> Task:
    values = {"prompt": "hi", "data": DATA[kind], "timeout_s": 5.0, "max_attempts": 3, "attempts": 1, "key_id": KEY_ID, "rank": 0.0}
    return Task(kind=kind, **{**values, **fields})


def says(text: str) -> Answer:
    result = Result([Text(text)], Ended("stop"), model="vendor-a", usage=USAGE)
    return Answer(body=msgspec.json.encode(result), usage=USAGE, finish_reason="stop", output_bytes=len(text))


def bench_of(monkeypatch: pytest.MonkeyPatch, *steps: Any, **caller: Any) -> tuple[Bench, Runner]:
    bench = Bench(monkeypatch, providers="a", key_id=KEY_ID, **{"scopes": frozenset({"tasks"}), **caller})
    bench.scripts["a"] = list(steps)
    gateway = Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline)
    return bench, Runner(gateway, lambda: 1000.0, random.Random(1))


async def test_an_answer_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, runner = bench_of(monkeypatch, says("yes"))
    ending = await runner.run(task())
    (ended,) = bench.sink.of(RequestEnded)
    assert (ending.status, ending.result, ending.request_id) == (Status.COMPLETED, {"text": "yes"}, ended.request_id)
    assert (ended.key_id, ended.task_type) == (KEY_ID, "custom")
    assert bench.settled_in_full()


async def test_a_result_has_the_shape_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    right = '```json\n{"translation": "你好", "source_language": "English"}\n```'
    _, runner = bench_of(monkeypatch, says("你好"), says(right))
    ending = await runner.run(task("translation"))
    assert (ending.status, ending.result) == (Status.COMPLETED, {"translation": "你好", "source_language": "English"})


@pytest.mark.parametrize(
    ("kind", "data", "wrong", "right", "result"),
    [
        (
            "category_match",
            {"text": "x", "categories": ["sport", "politics"]},
            '{"category": "music", "confidence_percent": 100}',
            '{"category": "sport", "confidence_percent": 50}',
            {"category": "sport", "confidence": 0.5},
        ),
        (
            "category_match",
            {"text": "x", "categories": ["sport", "politics"]},
            '{"category": "sport", "confidence_percent": 250}',
            '{"category": "politics", "confidence_percent": 100}',
            {"category": "politics", "confidence": 1.0},
        ),
        (
            "data_extraction",
            {"text": "x", "fields": ["title", "the date"]},
            '{"fields": {"title": "y"}}',
            '{"fields": {"title": "y", "the date": null}}',
            {"fields": {"title": "y", "the date": None}},
        ),
    ],
)
async def test_a_result_holds_what_the_caller_has_named(
    monkeypatch: pytest.MonkeyPatch, kind: str, data: dict[str, Any], wrong: str, right: str, result: dict[str, Any]
) -> None:
    _, runner = bench_of(monkeypatch, says(wrong), says(right))
    ending = await runner.run(task(kind, data=data))
    assert (ending.status, ending.result) == (Status.COMPLETED, result)
    schema = str(KINDS[kind].wishes(data))
    assert all(name in schema for name in (data.get("categories") or data["fields"]))


def test_names_that_no_schema_can_have_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="plain names"):
        KINDS["data_extraction"].checked("", {"text": "x", "fields": ['a "name"']})


async def test_an_answer_that_never_fits_is_tried_again_and_then_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, runner = bench_of(monkeypatch, *[says("你好")] * 4)
    ending = await runner.run(task("translation"))
    assert ending.error_code == "upstream_invalid_response"
    assert ending.again_at is not None
    last = await runner.run(task("translation", attempts=3))
    assert (last.status, last.again_at) == (Status.FAILED, None)
    assert "translation" in last.error_message


@pytest.mark.parametrize(
    ("error", "again"), [(ProviderFault("down"), True), (InvalidRequest("bad"), False), (ProviderRejectedOurKey("no"), True)]
)
async def test_which_failures_come_again(monkeypatch: pytest.MonkeyPatch, error: Exception, again: bool) -> None:
    _, runner = bench_of(monkeypatch, *[error] * 3)
    runner._gateway.live().max_retries = 0
    ending = await runner.run(task())
    assert ending.status == Status.FAILED
    assert (ending.again_at is not None) == again
    if again:
        assert 1000.5 <= (ending.again_at or 0) <= 1001


async def test_an_attempt_that_met_an_open_breaker_alone_is_not_counted_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, runner = bench_of(monkeypatch, ProviderFault("down"), ProviderFault("down"), ProviderFault("down"))
    runner._gateway.live().max_retries = 0
    submitted = datetime.fromtimestamp(990, UTC)
    called = [await runner.run(task(created_at=submitted)) for _ in range(3)]
    assert [ending.counted for ending in called] == [True] * 3
    asked = {"attempts": 3, "created_at": submitted, "timeout_s": 5.0}  # its three attempts may take until 1005
    ending = await runner.run(task(**asked))
    assert (ending.error_code, ending.counted, len(bench.scripts["a"])) == ("upstream_paused", False, 0)
    assert ending.again_at is not None
    assert ending.again_at >= 1010  # when the breaker lets a trial pass
    for late in ({"timeout_s": 3.0}, {"deadline": 999.0}):
        ending = await runner.run(task(**{**asked, **late}))
        assert (ending.status, ending.counted, ending.again_at) == (Status.FAILED, True, None)
    assert (await runner.run(task(**{**asked, "timeout_s": 3.0, "deadline": 1001.0}))).again_at is not None


async def test_a_key_that_is_gone_ends_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    _, runner = bench_of(monkeypatch)
    for gone in (task(key_id="7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f9999"), task(key_id=None)):
        ending = await runner.run(gone)
        assert (ending.status, ending.error_code, ending.again_at) == (Status.FAILED, NotAuthenticated.code, None)


async def test_the_route_of_a_kind_is_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, runner = bench_of(monkeypatch, says("1"), says("2"), says("3"))
    models = {"m": (bench.model("a"),), "custom": (msgspec.structs.replace(bench.model("a"), alias="custom"),)}
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=8, models=models))
    for asked in (task(), task(model="m"), task(model="a/vendor-a")):
        await runner.run(asked)
    assert [ended.alias for ended in bench.sink.of(RequestEnded)] == ["custom", "m", "custom"]


async def test_what_goes_wrong_inside_ends_the_attempt_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    _, runner = bench_of(monkeypatch, says("1"))
    monkeypatch.setattr(execution, "default_alias", lambda *_: 1 / 0)
    ending = await runner.run(task())
    assert (ending.status, ending.error_code) == (Status.FAILED, "server_error")


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_can_be_asked(name: str) -> None:
    kind = KINDS[name]
    kind.checked("hi", DATA[name])
    messages = kind.messages("Be brief.", DATA[name])
    assert messages[-1]["role"] == "user"
    assert any("Be brief." in message["content"] for message in messages)
    if name != "custom":
        schema = kind.wishes(DATA[name])["response_format"]["json_schema"]["schema"]
        assert schema["required"]
        assert next(iter(schema["properties"])) in messages[0]["content"]


def test_every_kind_of_the_contract_is_there() -> None:
    shipped = "semantic_analysis data_cleaning category_match text_summarization translation custom financial_analysis code_generation"
    assert set(KINDS) == {*shipped.split(), "data_extraction"} == set(DATA)


async def test_a_model_that_was_made_a_moment_ago_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, runner = bench_of(monkeypatch, says("yes"))
    looked: list[float] = []

    async def hear(seconds: float) -> None:
        looked.append(seconds)
        bench.manager.apply(bench.snapshot)

    monkeypatch.setattr("tasks.execution.asyncio", SimpleNamespace(sleep=hear))
    for age_s, status in ((10, Status.FAILED), (1, Status.COMPLETED)):
        bench.manager.apply(msgspec.structs.replace(bench.snapshot, models={}))
        ending = await runner.run(task(model="m", created_at=datetime.fromtimestamp(1000 - age_s, UTC)))
        assert ending.status == status, ending
    assert len(looked) == 1


def templated(monkeypatch: pytest.MonkeyPatch, *steps: Any) -> tuple[PromptBench, Runner]:
    bench = PromptBench(monkeypatch, key_id=KEY_ID, scopes=frozenset({"tasks"}))
    bench.scripts["a"] = list(steps)
    return bench, Runner(bench.gateway, lambda: 1000.0, random.Random(1))


@pytest.mark.parametrize(("version", "number"), [({}, 2), ({"version": "staging"}, 3), ({"version": 1}, 1)])
async def test_a_template_is_the_task(monkeypatch: pytest.MonkeyPatch, version: dict[str, Any], number: int) -> None:
    bench, runner = templated(monkeypatch, says("yes"))
    ending = await runner.run(task(prompt="", template={"id": "support", "variables": {"question": "Why?"}, **version}))
    assert (ending.status, ending.result) == (Status.COMPLETED, {"text": "yes"}), ending
    assert bench.messages()[0] == {"role": "system", "content": "Be brief, friend."}
    (ended,) = bench.sink.of(RequestEnded)
    assert (ended.prompt_name, ended.prompt_version) == ("support", number)


async def test_a_template_comes_before_what_a_kind_says(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, right = says("你好"), says('{"translation": "你好", "source_language": "English"}')
    bench, runner = templated(monkeypatch, wrong, right)
    ending = await runner.run(task("translation", prompt="", template={"id": "support", "variables": {"question": "Why?"}}))
    assert ending.status == Status.COMPLETED, ending
    roles = [message["role"] for message in bench.messages()]
    assert roles == ["system", "user", "system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ({"id": "secret"}, "prompt_not_found"),
        ({"id": "support", "version": 9}, "prompt_not_found"),
        ({"id": "support"}, "invalid_request"),
    ],
)
async def test_a_template_that_cannot_be_used_ends_the_task(monkeypatch: pytest.MonkeyPatch, template: dict[str, Any], code: str) -> None:
    bench, runner = templated(monkeypatch)
    ending = await runner.run(task(prompt="", template=template))
    assert (ending.status, ending.error_code, ending.again_at) == (Status.FAILED, code, None), ending
    assert bench.asked == []


async def test_what_is_kept_is_a_result_unless_the_task_wants_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, runner = bench_of(monkeypatch, says("1"), says("2"), says("3"))
    bench.pipeline.cache = Cache(bench.clock, max_bytes=100_000, max_entry_bytes=10_000)
    model = msgspec.structs.replace(bench.model("a"), cache_ttl_s=60)
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, version=8, models={"m": (model,)}))
    off = read({"type": "custom", "prompt": "hi", "config": {"cache_enabled": False}}).config.options()
    endings = [await runner.run(asked) for asked in (task(), task(), task(options=off), task(attempts=2), task())]
    assert [ending.result["text"] for ending in endings if ending.result] == ["1", "1", "2", "3", "1"]
    assert [ended.cache for ended in bench.sink.of(RequestEnded)] == ["miss", "hit", "", "", "hit"]


@pytest.mark.parametrize(
    ("prompt", "field"), [({}, "prompt"), ({"id": ""}, "prompt.id"), ({"id": "x", "version": 0}, "prompt.version"), (7, "prompt")]
)
def test_a_prompt_that_names_no_template_is_refused(prompt: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({"type": "custom", "prompt": prompt}, where="tasks.0.")
    assert str(refused.value.param).startswith(f"tasks.0.{field}"), refused.value.param


def test_a_summary_is_as_short_as_was_asked_for() -> None:
    kind = KINDS["text_summarization"]
    brief = msgspec.json.Decoder(kind.shape({"text": "x", "max_words": 5}))
    assert kind.read(brief.decode(b'{"summary": "short", "key_points": []}')) == {"summary": "short", "key_points": []}
    for long in (
        {"summary": "x" * 61, "key_points": []},
        {"summary": "", "key_points": ["x" * 61]},
        {"summary": "", "key_points": ["x"] * 6},
    ):
        with pytest.raises(msgspec.ValidationError):
            brief.decode(msgspec.json.encode(long))
    # More than a grammar can count is left to the instructions.
    whole = msgspec.json.Decoder(kind.shape({"text": "x", "max_words": 5000}))
    assert whole.decode(msgspec.json.encode({"summary": "x" * 61, "key_points": ["x"] * 6}))
