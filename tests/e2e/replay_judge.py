"""Whether what became of a replayed exchange is what it should be: the answer, the request, the usage, the class of error.

What is intended to differ is said here, once and with its reason; everything else that differs is a finding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from core.errors import GatewayError
from core.usage import Usage
from tests import replay
from tests.adapters import test_openai_endpoints as of_endpoints
from tests.adapters import test_recorded as of_openai
from tests.adapters import test_recorded_anthropic as of_anthropic
from tests.adapters import test_recorded_compatible as of_compatible
from tests.adapters import test_recorded_dashscope as of_dashscope
from tests.adapters import test_recorded_gemini as of_gemini
from tests.e2e import wire
from tests.e2e.replay_drive import Outcome
from tests.e2e.replay_plan import ANTHROPIC, CHAT, COUNT, EMBEDDINGS, MODELS, RESPONSES, Plan
from tests.e2e.replay_reading import Said, by_client, in_recording
from tests.e2e.wire import Answer

ANSWER, REQUEST, USAGE, ERROR, DIALECTS = "answer", "request", "usage", "error", "dialects"
# What every exchange that failed is to be for us, by its id.
ERRORS: dict[str, type[GatewayError]] = {
    **of_openai.ERRORS,
    **of_compatible.ERRORS,
    **of_compatible.ELSEWHERE,
    **of_endpoints.FAILED,
    **of_anthropic.ERRORS,
    **of_gemini.ERRORS,
    **of_dashscope.ERRORS,
}


class Known(NamedTuple):
    """A difference that is meant. `kinds` of provider, () = any; `sign` is what stands in it, positions left out."""

    kinds: tuple[str, ...]
    sign: str
    reason: str

    def explains(self, kind: str, difference: str) -> bool:
        return (not self.kinds or kind in self.kinds) and self.sign in re.sub(r"\[\d+\]", "[]", difference)


# What the vendor is sent otherwise than was recorded.
REQUESTS = [
    Known((), "$.stream_options: extra", "usage is asked of every stream: what was spent must be known"),
    Known(("azure",), "$.model", "the deployment is named in the body too, as Azure's own SDK does"),
    Known(("azure",), "for /models/chat/completions", "the inference path is older than v1, which serves the same models"),
    Known(("anthropic",), "for /v1/messages?beta=true", "a mark of the SDK's beta client; what it switches on travels in a header"),
    Known(("anthropic",), "/v1/models?limit=1000 for", "one page instead of several"),
    Known(("anthropic",), "$.max_tokens: extra", "our door, like Anthropic, requires it: without it no vendor is asked"),
    Known(("gemini",), "/models?pageSize=1000 for", "one page instead of several"),
    Known(("gemini",), ".thinkingBudget: extra", "OpenAI's dialect knows efforts; no effort is not a wish for thoughts"),
    Known(("gemini",), "for /v1/projects/", "Vertex has the same wire at other addresses"),
    Known(("gemini",), "for /v1beta1/projects/", "Vertex has the same wire at other addresses"),
    *(Known(("gemini",), sign, reason) for sign, reason in of_gemini.INTENDED.items()),
    *(Known(("dashscope",), sign, reason) for sign, reason in of_dashscope.INTENDED.items()),
]
# What a client of the vendor's own dialect is told otherwise than the vendor said it.
ANSWERS = [Known((), sign, reason) for sign, reason in of_compatible.REPAIRED.items()]
_KEY_HEADERS = {"authorization", "x-api-key", "api-key", "x-goog-api-key"}
_BUCKETS = {
    "input_tokens": "input",
    "cached_input_tokens": "cached_input",
    "cache_write_tokens": "cache_write",
    "cache_write_1h_tokens": "cache_write_1h",
    "input_audio_tokens": "input_audio",
    "input_image_tokens": "input_image",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
    "output_audio_tokens": "output_audio",
    "output_image_tokens": "output_image",
}


@dataclass
class Verdict:
    """`findings` by aspect; one without any was judged and is well. `intended`: the known differences that were met."""

    plan: Plan
    findings: dict[str, list[str]] = field(default_factory=dict)
    intended: set[Known] = field(default_factory=set)

    @property
    def passed(self) -> bool:
        return not any(self.findings.values())

    def judged(self, aspect: str, findings: Iterator[str]) -> None:
        self.findings.setdefault(aspect, []).extend(findings)

    def unexplained(self, differences: list[str], table: list[Known]) -> Iterator[str]:
        for difference in differences:
            reasons = {known for known in table if known.explains(self.plan.kind, difference)}
            self.intended |= reasons
            if not reasons:
                yield difference


def judge(outcome: Outcome) -> Verdict:
    verdict, plan = Verdict(outcome.plan), outcome.plan
    verdict.judged(REQUEST, verdict.unexplained(list(_request(outcome)), REQUESTS))
    if plan.id in ERRORS:
        verdict.judged(ERROR, _errors(outcome, ERRORS[plan.id]))
    elif plan.dialect in (MODELS, COUNT):
        verdict.judged(ANSWER, _list_or_count(plan, outcome.answer))
    else:
        said = in_recording(plan)
        verdict.judged(ANSWER, _answer(verdict, outcome, said))
        verdict.judged(USAGE, _usage(outcome, said))
        if outcome.others:
            verdict.judged(DIALECTS, _dialects(outcome, said))
    return verdict


def _request(outcome: Outcome) -> Iterator[str]:
    plan = outcome.plan
    if len(outcome.sent) != 1:
        yield f"{len(outcome.sent)} requests reached the vendor"
        return
    (sent,) = outcome.sent
    recorded = plan.exchange["request"]
    if not _KEY_HEADERS & set(sent["headers"]):
        yield "no header carries the key"
    if (sent["method"], sent["path"]) != (recorded["method"], recorded["path"]) and not plan.why_not.startswith("recorded at"):
        yield f"address: {sent['method']} {sent['path']} for {recorded['path']}"
    if plan.expected is not None:
        yield from replay.differences(plan.expected, of_gemini.camel(sent["body"]) if plan.kind == "gemini" else sent["body"])


def _answer(verdict: Verdict, outcome: Outcome, said: Said) -> Iterator[str]:
    plan = outcome.plan
    for answer, told_usage in ((outcome.answer, plan.asks_usage), (outcome.turned, not plan.asks_usage)):
        if answer is None:
            continue
        if answer.status != 200:
            yield f"status {answer.status}: {answer.body[:200]!r}"
        elif plan.passes and plan.dialect != EMBEDDINGS:
            yield from verdict.unexplained(_changes(plan, answer, told_usage), ANSWERS)
        else:
            given = by_client(plan.dialect, answer.body, plan.streams)
            yield from _contents(said, given, plan.dialect)
            yield from _told(said.usage, given.usage, told_usage or not plan.streams)


def _changes(plan: Plan, answer: Answer, told_usage: bool) -> list[str]:
    """How the answer of a vendor that speaks the client's dialect was changed on the way; null and absent are the same."""
    response = plan.exchange["response"]
    if not plan.streams:
        return replay.differences(json.loads(replay.body_of(response)), answer.json)
    recorded = list(wire.events(replay.body_of(response).decode()))
    missing = ["[DONE] is missing"] if plan.dialect == CHAT and answer.events[-1:] != ["[DONE]"] else []
    said, given = ([json.loads(data) for data in events if data != "[DONE]"] for events in (recorded, answer.events))
    if plan.dialect == CHAT and not told_usage:
        said = [chunk for chunk in said if chunk["choices"] or not chunk.get("usage")]
    if len(said) != len(given):
        return [*missing, f"{len(given)} events for {len(said)}"]
    return missing + [line for was, now in zip(said, given, strict=True) for line in replay.differences(was, now)]


def _dialects(outcome: Outcome, said: Said) -> Iterator[str]:
    for dialect, answer in outcome.others.items():
        if answer.status != 200:
            yield f"{dialect}: status {answer.status}: {answer.body[:200]!r}"
            continue
        given = by_client(dialect, answer.body, outcome.plan.streams)
        yield from (f"{dialect}: {finding}" for finding in _contents(said, given, dialect))
        # A client of OpenAI's that does not ask is told no usage of a stream.
        yield from (f"{dialect}: {line}" for line in _told(said.usage, given.usage, dialect != CHAT or not outcome.plan.streams))


def _told(recorded: Usage | None, given: Usage | None, asked: bool) -> Iterator[str]:
    if given is not None and not asked:
        yield f"told of {given}, unasked"
    if recorded is not None and asked and (given is None or _sums(given) != _sums(recorded)):
        yield f"told of {given}, recorded {recorded}"


def _sums(usage: Usage) -> tuple[int, int]:
    return usage.prompt_tokens, usage.completion_tokens


def _contents(said: Said, given: Said, dialect: str) -> Iterator[str]:
    finish = "tool_calls" if said.calls and said.finish == "stop" else said.finish
    text, refusal = said.text, said.refusal
    if dialect == ANTHROPIC and refusal:  # whose clients know a refusal by its stop reason, and show its text
        text, refusal, finish = text + refusal, "", "content_filter"
    for name, was, now in (
        ("text", text, given.text),
        ("refusal", refusal, given.refusal),
        ("thought", said.thought, given.thought),
        ("calls", [call[1:] for call in said.calls], [call[1:] for call in given.calls]),
        ("finish", finish, given.finish),
    ):
        if was != now:
            yield f"{name}: {now!r:.200} for {was!r:.200}"
    for was, now in zip([call[0] for call in said.calls], [call[0] for call in given.calls], strict=False):
        # Where Anthropic's clients would not take an id, and where the vendor gave none, ours stands for it.
        kept = was and (dialect != ANTHROPIC or re.fullmatch(r"[a-zA-Z0-9_-]+", was))
        if not now or (kept and now != was):
            yield f"id: {now!r} for {was!r}"
    if len({call[0] for call in given.calls}) != len(given.calls):
        yield f"ids: {[call[0] for call in given.calls]}"


def _usage(outcome: Outcome, said: Said) -> Iterator[str]:
    answers = [("", outcome.answer), ("turned", outcome.turned), *outcome.others.items()]
    for name, answer in answers:
        if answer is None or answer.status != 200:
            continue
        record = outcome.records.get(answer.request_id)
        if record is None:
            yield f"{name}: no record"
            continue
        booked = Usage(**{bucket: record[column] for column, bucket in _BUCKETS.items()})
        if record["status"] != "ok":
            yield f"{name}: booked as {record['status']}"
        if said.usage is not None and (booked, record["usage_source"]) != (_without_tier(said.usage), "vendor"):
            yield f"{name}: booked {booked} ({record['usage_source']}), recorded {said.usage}"
        if said.usage is None and (record["usage_source"] != "estimated" or not booked.prompt_tokens):
            yield f"{name}: booked {booked} ({record['usage_source']}), although the vendor told none"


def _without_tier(usage: Usage) -> Usage:
    """The tier chooses a price, and is not recorded."""
    return msgspec.structs.replace(usage, service_tier=None)


def _list_or_count(plan: Plan, answer: Answer) -> Iterator[str]:
    recorded = plan.exchange["response"]["body"]
    if plan.dialect == COUNT:
        told = (answer.status, answer.json, answer.headers.get("x-llm-token-count"))
        if told != (200, recorded, "exact"):
            yield f"counted {told}, recorded {recorded}"
        return
    rows = recorded.get("data") or [{"id": row["name"].removeprefix("models/")} for row in recorded["models"]]
    if answer.json.get("new") != sorted(row["id"] for row in rows):
        yield f"listed {answer.body[:200]!r}"


def _errors(outcome: Outcome, expected: type[GatewayError]) -> Iterator[str]:
    answers = [(outcome.plan.dialect, outcome.answer), *outcome.others.items()]
    answers += [(outcome.plan.dialect, outcome.turned)] if outcome.turned else []
    for dialect, answer in answers:
        status, code = failure(dialect, answer)
        if (status, code) not in ((expected.http_status, expected.code), (200, expected.code)):
            yield f"{dialect}: {status} {code} for {expected.__name__}"
        if status == 200 and not outcome.plan.streams:
            yield f"{dialect}: an error in an answer that looks well"
        if _told_to_wait(outcome.plan) and "retry-after" not in answer.headers:
            yield f"{dialect}: no Retry-After"
        if b"<html" in answer.body.lower() or b"org-" in answer.body:
            yield f"{dialect}: the vendor's own words: {answer.body[:200]!r}"
        record = outcome.records.get(answer.request_id, {})
        if (record.get("status"), record.get("error_code")) != ("error", expected.code):
            yield f"{dialect}: booked as {record.get('status')} {record.get('error_code')}"


def _told_to_wait(plan: Plan) -> bool:
    response = plan.exchange["response"]
    named = {name.lower() for name in response["headers"]} & {"retry-after", "retry-after-ms"}
    return response["status"] == 429 and bool(named or b'"retryDelay"' in replay.body_of(response))


def failure(dialect: str, answer: Answer) -> tuple[int, Any]:
    """(HTTP status, our code), the code None where the answer holds no error in the words of its dialect. A stream's is its last event."""
    if answer.status == 200:
        last = json.loads(answer.events[-1]) if answer.events and answer.events[-1] != "[DONE]" else {}
        body = last.get("response") or last
    else:
        body = answer.json
    error = body.get("error") or {}
    if dialect in (ANTHROPIC, COUNT):
        return answer.status, (error.get("details") or {}).get("error_code") if body.get("type") == "error" else None
    if dialect == RESPONSES and answer.status == 200:
        return answer.status, error.get("code") or body.get("code")
    return answer.status, error["code"] if set(error) == wire.ERROR_KEYS else None
