"""Every recorded exchange, of all vendors and all kinds, goes through a live gateway and is judged.

replay_plan.py says how each is asked, replay_drive.py asks, replay_judge.py judges, vendors_report.py tells.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests import replay
from tests.e2e import vendors_report
from tests.e2e.replay_drive import Outcome
from tests.e2e.replay_judge import ANSWERS, ERRORS, REQUESTS, Verdict, judge
from tests.e2e.replay_plan import ERRORS_OF_OTHER_ENDPOINTS, NOT_OFFERED, REFUSED_HERE, plans

pytestmark = pytest.mark.process

PLANS = plans()
IDS = list(PLANS) or [pytest.param("", marks=pytest.mark.skip(replay.ABSENT))]
Replayed = dict[str, Outcome]
Verdicts = dict[str, Verdict]


def test_no_exchange_is_forgotten() -> None:
    replay.require()
    listed = [json.loads(line)["id"] for line in (replay.RECORDED / "index.jsonl").read_text().splitlines()]
    assert len(listed) == len(set(listed)) >= 233
    assert sorted([*PLANS, *NOT_OFFERED]) == sorted(listed)
    assert sorted(path.stem for path in replay.RECORDED.glob("*/*.json")) == sorted(listed)
    assert all(NOT_OFFERED.values())


def test_every_failure_has_its_class() -> None:
    replay.require()
    assert [plan.id for plan in PLANS.values() if plan.status != 200 and plan.id not in ERRORS] == []
    assert set(ERRORS) <= set(PLANS) | set(NOT_OFFERED)
    assert set(ERRORS_OF_OTHER_ENDPOINTS) | set(REFUSED_HERE) <= set(ERRORS)


@pytest.mark.parametrize("id_", IDS)
def test_an_exchange_arrives(verdicts: Verdicts, id_: str) -> None:
    findings = verdicts[id_].findings
    assert {aspect: found for aspect, found in findings.items() if found} == {}
    assert len(findings) >= 2  # the request, and what came of it


def test_the_tables_of_intended_differences_hold_no_more_than_there_are(verdicts: Verdicts) -> None:
    met = {known for verdict in verdicts.values() for known in verdict.intended}
    assert [known for known in (*REQUESTS, *ANSWERS) if known not in met] == []


def test_the_page_is_what_the_suite_would_write(verdicts: Verdicts) -> None:
    written = vendors_report.PAGE.read_text() if vendors_report.PAGE.is_file() else ""
    assert written == vendors_report.page(list(verdicts.values())), f"run {vendors_report.COMMAND}"


def test_every_column_of_the_report_has_something_in_it(verdicts: Verdicts, record_property: Callable[[str, object], None]) -> None:
    record_property("told", ["vendors, replayed end to end", *vendors_report.terminal(list(verdicts.values()))])
    head, *rows = vendors_report.table(verdicts.values())
    recorded, written = (dict(zip(head, row, strict=True)) for row in rows[-2:])
    assert "" not in recorded.values()
    assert recorded["all"].endswith("/158")
    assert written["all"].endswith("/65")


# The judge is no yes-man: each tampering is found, under the aspect that it is of.


def body(outcome: Outcome, old: str, new: str) -> Outcome:
    assert old.encode() in outcome.answer.body
    return dataclasses.replace(outcome, answer=outcome.answer._replace(body=outcome.answer.body.replace(old.encode(), new.encode())))


def status(outcome: Outcome) -> Outcome:
    return dataclasses.replace(outcome, answer=outcome.answer._replace(status=401))


def unsent(outcome: Outcome) -> Outcome:
    return dataclasses.replace(outcome, sent=[])


def sent_more(outcome: Outcome) -> Outcome:
    (sent,) = outcome.sent
    return dataclasses.replace(outcome, sent=[{**sent, "body": {**sent["body"], "x_more": 1}}])


def booked_more(outcome: Outcome) -> Outcome:
    records = {id_: {**record, "output_tokens": record["output_tokens"] + 1} for id_, record in outcome.records.items()}
    return dataclasses.replace(outcome, records=records)


def mixed_up(outcome: Outcome) -> Outcome:
    others = {"openai": outcome.others["openai"], "anthropic": outcome.others["responses"]} if "openai" in outcome.others else {}
    return dataclasses.replace(outcome, others=others or {"anthropic": outcome.others["anthropic"]._replace(status=502)})


TAMPERED: list[tuple[str, str, Callable[..., Outcome], tuple[Any, ...]]] = [
    ("openai-chat-897eb5", "answer", body, ('"role"', '"part"')),
    ("anthropic-messages-stream-2d4177", "answer", body, ("text_delta", "test_delta")),
    ("gemini-stream-0fd383", "answer", body, ('"finish_reason":"stop"', '"finish_reason":"length"')),
    ("dashscope-native-tool-call-52403f", "answer", body, ('"arguments":"{', '"arguments":"{\\"x\\":1,')),
    ("openai-embeddings-5f9822", "answer", body, ('"embedding": [', '"embedding": [0.5,')),
    ("anthropic-count-tokens-df8436", "answer", body, ("669", "670")),
    ("gemini-generate-18749e", "answer", body, ('"total_tokens":', '"prompt_tokens":1,"total_tokens":')),
    ("gemini-models-dad00f", "answer", body, ("gemini-2.5-pro", "gemini-2.5-con")),
    ("openai-error-500-r3d72d", "error", body, ("upstream_error", "server_error")),
    ("mistral-error-401-4c7fe3", "error", status, ()),
    ("openai-chat-897eb5", "request", unsent, ()),
    ("anthropic-messages-4c7141", "request", sent_more, ()),
    ("gemini-stream-0fd383", "request", sent_more, ()),
    ("openai-chat-897eb5", "usage", booked_more, ()),
    ("dashscope-native-95f766", "usage", booked_more, ()),
    ("openai-chat-897eb5", "dialects", mixed_up, ()),
]


@pytest.mark.parametrize(("id_", "aspect", "tamper", "how"), TAMPERED, ids=[f"{case[0]}-{case[2].__name__}" for case in TAMPERED])
def test_the_judge_finds_what_is_wrong(replayed: Replayed, id_: str, aspect: str, tamper: Callable[..., Outcome], how: Any) -> None:
    found = judge(tamper(replayed[id_], *how)).findings
    assert [name for name, findings in found.items() if findings] == [aspect]
