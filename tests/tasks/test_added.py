"""Types of tasks that people add: what may stand in one, what its tasks take with them, and what is believed of their answers."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from django.core.exceptions import ValidationError
from pytest_django.fixtures import DjangoAssertNumQueries

from core.errors import InvalidRequest
from models_registry.models import PromptTemplate
from models_registry.prompt_services import Wording, save_prompt
from monitoring.models import AuditEvent
from tasks import queue, schemas, service
from tasks.added import Types, kind_of, options_of, template_of
from tasks.execution import Runner
from tasks.models import Task, TaskType
from tasks.queue import Ending
from tasks.service import Submitter
from tasks.states import Status
from tests.gateway.test_prompts import PromptBench
from tests.tasks.test_execution import KEY_ID, says

NOW = 1_800_000_000.0
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "pattern": {"type": "string"}},
    "required": ["mood"],
    "additionalProperties": False,
}
RIGHT, WRONG = '{"mood": "good"}', '{"mood": "so so"}'


@pytest.fixture
def triage(db: None) -> TaskType:
    template = PromptTemplate(name="support")
    save_prompt(template, Wording([{"role": "user", "content": "{{question}}"}], [{"name": "question"}]))
    return added(result_schema=SCHEMA)


def added(**fields: Any) -> TaskType:
    row = TaskType(**{"name": "triage", "prompt": "support", **fields})
    row.full_clean()
    row.save()
    return row


def submit(count: int = 1, **fields: Any) -> list[Task]:
    types = Types()
    body = {"type": "triage", "data": {"question": "Why?"}, **fields}
    return service.submit([service.read(body, types=types) for _ in range(count)], Submitter(), clock=lambda: NOW)


# What may stand in a type -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "translation"}, "There is a shipped type of this name"),
        ({"name": "a type"}, "Use letters, digits, _ and -; start with a letter."),
        ({"name": "triage"}, "already exists"),
        ({"prompt": "nobody"}, "There is no prompt called 'nobody'"),
        ({"prompt_version": "9"}, "has no version '9'"),
        ({"prompt_version": "staging"}, "has no version 'staging'"),
        ({"result_schema": {"type": "string"}}, "A result is a JSON object"),
        ({"result_schema": {"type": "object", "required": "mood"}}, "It is no JSON schema: $.required"),
        ({"timeout_s": 1e9}, "s at most"),
        ({"temperature": 3}, "less than or equal to 2"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"max_concurrency": 0}, "greater than or equal to 1"),
    ],
)
def test_what_a_type_cannot_be_is_said_at_its_field(triage: TaskType, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        added(**{"name": "another", **fields})
    (field,) = fields
    assert sentence in refused.value.message_dict[field][0]


def test_a_type_keeps_its_name(triage: TaskType) -> None:
    triage.description = "For the help desk."
    triage.full_clean()
    triage.name = "other"
    with pytest.raises(ValidationError, match="keeps its name"):
        triage.full_clean()


def test_the_trail_has_it(triage: TaskType) -> None:
    event = AuditEvent.objects.latest("sequence")
    assert (event.object_type, event.object_label) == ("tasks.TaskType", "triage")


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"$ref": "https://schemas.example/x"}, "At $.properties.a stands '$ref':"),
        ({"items": {"pattern": "(a+)+$"}}, "At $.properties.a.items stands 'pattern':"),
        ({"anyOf": [{}, {"$defs": {}}]}, "At $.properties.a.anyOf[1] stands '$defs':"),
    ],
)
def test_what_could_be_fetched_or_take_for_ever_is_refused(part: dict[str, Any], where: str) -> None:
    assert schemas.refusal({"type": "object", "properties": {"a": part}}).startswith(where)


def test_a_schema_has_a_bound_in_length_and_depth() -> None:
    assert "longer than" in schemas.refusal({"type": "object", "description": "x" * schemas.MAX_BYTES})
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(schemas.MAX_DEPTH + 3):
        deep = {"type": "object", "properties": {"a": deep}}
    assert "nested deeper" in schemas.refusal(deep)
    assert schemas.refusal(SCHEMA) == ""
    assert schemas.refusal({"type": "object", "properties": {"$ref": {"enum": ["$ref"]}}}) == ""


@pytest.mark.parametrize(
    "answer", ["no", "[]", WRONG, "{}", '{"mood": "good", "more": 1}', '{"mood": "good", "pattern": 7}', "[" * 100_000]
)
def test_an_answer_that_does_not_follow_the_schema_is_not_believed(answer: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        schemas.Shape(SCHEMA).decode(answer)


def test_an_answer_says_what_is_wrong_with_it_and_where() -> None:
    with pytest.raises(msgspec.DecodeError, match=r"\$\.mood: 'so so' is not one of"):
        schemas.Shape(SCHEMA).decode(WRONG)
    assert schemas.Shape(SCHEMA).decode(RIGHT) == {"mood": "good"}


# Submitting ---------------------------------------------------------------------------------------------------------


def test_a_task_takes_with_it_what_its_type_says(triage: TaskType, settings: Any) -> None:
    (task,) = submit()
    assert task.template == {"id": "support", "variables": {"question": "Why?"}}
    assert (task.model, task.timeout_s, task.data) == ("", settings.TASK_TIMEOUT_S, {})
    triage.model, triage.max_tokens, triage.temperature, triage.timeout_s, triage.prompt_version = "big", 9, 0.5, 7.0, "1"
    triage.save()
    (task,) = submit(prompt="Be kind.")
    assert (task.kind, task.prompt, task.model, task.timeout_s) == ("triage", "Be kind.", "big", 7.0)
    assert task.template == {"id": "support", "version": 1, "variables": {"question": "Why?"}}
    wanted = {"type": "json_schema", "json_schema": {"name": "triage", "schema": SCHEMA}}
    assert task.options == {"max_tokens": 9, "temperature": 0.5, "response_format": wanted}
    (task,) = submit(config={"model": "m", "max_tokens": 3, "timeout": 2})
    assert (task.model, task.timeout_s, task.options["max_tokens"], task.options["temperature"]) == ("m", 2, 3, 0.5)


def test_a_type_that_is_not_there_or_switched_off_is_named_with_those_there_are(triage: TaskType) -> None:
    added(name="other")
    TaskType.objects.filter(pk=triage.pk).update(is_active=False)
    with pytest.raises(InvalidRequest, match=r"Unknown task type 'triage'; there are semantic_analysis, .*custom, other\.") as refused:
        submit()
    assert refused.value.param == "type"


def test_a_task_of_it_has_no_template_of_its_own(triage: TaskType) -> None:
    with pytest.raises(InvalidRequest, match="have the prompt template 'support'") as refused:
        submit(prompt={"id": "support"})
    assert refused.value.param == "prompt"


def test_a_batch_looks_a_type_up_once(triage: TaskType, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    types = Types()
    with django_assert_num_queries(1):
        for _ in range(50):
            service.read({"type": "triage", "data": {"question": "Why?"}}, types=types)


def test_a_type_that_changes_or_ends_changes_no_task_that_waits(triage: TaskType) -> None:
    (task,) = submit()
    triage.delete()
    (claimed,) = queue.claim("w", 10, NOW + 1, 20.0)
    assert claimed.task.pk == task.pk
    kind = kind_of(claimed.task)
    shape = kind.decoder({})
    assert shape is not None
    assert shape.decode(RIGHT) == {"mood": "good"}


def test_its_places_are_bounded_by_its_row_and_with_all_others(triage: TaskType, settings: Any) -> None:
    TaskType.objects.filter(pk=triage.pk).update(max_concurrency=2)
    submit(5)
    first = queue.claim("w", 10, NOW + 1, 20.0)
    assert len(first) == 2
    assert queue.claim("w", 10, NOW + 1, 20.0) == []
    assert queue.end(first[0], Ending(Status.COMPLETED, result={}), NOW + 2)
    assert len(queue.claim("w", 10, NOW + 3, 20.0)) == 1
    assert queue.end(first[1], Ending(Status.COMPLETED, result={}), NOW + 4)
    settings.TASK_LIMITS = {"*": 1}
    assert queue.claim("w", 10, NOW + 5, 20.0) == []


# Working on it ------------------------------------------------------------------------------------------------------


def bench_of(monkeypatch: pytest.MonkeyPatch, *steps: Any) -> tuple[PromptBench, Runner]:
    bench = PromptBench(monkeypatch, key_id=KEY_ID, scopes=frozenset({"tasks"}))
    bench.scripts["a"] = list(steps)
    return bench, Runner(bench.gateway, lambda: 1000.0, random.Random(1))


def task_of(row: TaskType, data: dict[str, Any], prompt: str = "") -> Task:
    """As it is submitted."""
    fields = {"template": template_of(row, data), "options": options_of(row), "timeout_s": 5.0, "max_attempts": 3, "attempts": 1}
    return Task(kind=row.name, prompt=prompt, key_id=KEY_ID, rank=0.0, **fields)


async def test_an_answer_of_another_shape_is_shown_to_the_model_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, runner = bench_of(monkeypatch, says(WRONG), says(f"```json\n{RIGHT}\n```"))
    row = TaskType(name="triage", prompt="support", result_schema=SCHEMA)
    ending = await runner.run(task_of(row, {"question": "Why?"}, "Be kind."))
    assert (ending.status, ending.result) == (Status.COMPLETED, {"mood": "good"}), ending
    messages = bench.messages()
    assert messages[0] == {"role": "system", "content": "Be brief, friend."}
    asked = [message["content"] for message in messages if message["role"] == "user"]
    assert any("Why?" in text for text in asked)
    assert any(text.startswith("Be kind.\n\nAnswer with one JSON object") and '"mood"' in text for text in asked)
    assert "'so so' is not one of" in asked[-1]
    assert msgspec.json.decode(bench.asked[0].fields["response_format"])["json_schema"]["name"] == "triage"


async def test_an_answer_that_never_fits_fails_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    _, runner = bench_of(monkeypatch, says(WRONG), says(WRONG))
    ending = await runner.run(task_of(TaskType(name="triage", prompt="support", result_schema=SCHEMA), {"question": "Why?"}))
    assert (ending.status, ending.error_code) == (Status.FAILED, "upstream_invalid_response")
    assert "triage" in ending.error_message


async def test_without_a_schema_the_result_is_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, runner = bench_of(monkeypatch, says("Because."))
    ending = await runner.run(task_of(TaskType(name="triage", prompt="support", prompt_version="1"), {"question": "Why?"}))
    assert ending.result == {"text": "Because."}, ending
    assert "response_format" not in bench.asked[-1].fields


@pytest.mark.parametrize(("prompt", "data"), [("support", {"unknown": 1}), ("secret", {"question": "Why?"})])
async def test_data_that_the_template_does_not_take_and_templates_that_are_closed_end_the_task(
    monkeypatch: pytest.MonkeyPatch, prompt: str, data: dict[str, Any]
) -> None:
    bench, runner = bench_of(monkeypatch)
    ending = await runner.run(task_of(TaskType(name="triage", prompt=prompt), data))
    assert (ending.status, ending.again_at) == (Status.FAILED, None), ending
    assert ending.error_code in ("invalid_request", "prompt_not_found")
    assert bench.asked == []
