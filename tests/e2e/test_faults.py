"""Vendors that misbehave: the caller gets the typed error of the table, never an empty success, and every attempt is on record."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, unique, until
from tests.e2e.schema import Schema
from tests.e2e.vendor import Vendor
from tests.e2e.wire import Answer

pytestmark = pytest.mark.process

NEVER_OPENS = {"fail_max": 1000, "reset_timeout_s": 1}
REFUSED_PORT_URL = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Fault:
    """`midstream`: a streamed answer begins well, so the error is an event of the stream. `codes`: what it may be called.
    `rests`: our credential is not used again for a while, so further attempts never reach the vendor.
    `late`: found out only when the time for the whole request is over, with none left for another target."""

    name: str
    model_id: str
    status: int
    codes: tuple[str, ...]
    whole: bool = True
    streamed: bool = True
    midstream: bool = False
    rests: bool = False
    late: bool = False
    base_url: str = ""
    timeouts: dict[str, float] = field(default_factory=lambda: {"connect_s": 1, "first_byte_s": 5, "idle_s": 5, "total_s": 20})

    def __str__(self) -> str:
        return self.name


QUICK = {"connect_s": 0.5, "first_byte_s": 0.2, "idle_s": 0.2, "total_s": 10}
NONSENSE = ("upstream_invalid_response",)
BROKEN = ("upstream_unreachable", "upstream_invalid_response")
FAULTS = [
    Fault("refused port", "any", 502, ("upstream_unreachable",), base_url=REFUSED_PORT_URL),
    Fault("timeout before the headers", "fault-stall", 504, ("upstream_timeout",), timeouts=QUICK),
    Fault("500", "fault-500", 502, ("upstream_error",)),
    Fault("503", "fault-503", 502, ("upstream_error",)),
    Fault("429", "fault-429@retry_after=7", 429, ("rate_limit_exceeded",), rests=True),
    Fault("401", "fault-401", 502, ("upstream_credentials_exhausted",), rests=True),
    Fault("404", "fault-404", 502, ("upstream_model_not_found",)),
    Fault("redirect", "fault-redirect@to=/v1/models", 502, ("upstream_error", *NONSENSE)),
    Fault("HTML with 200", "fault-html-200", 502, NONSENSE),
    Fault("truncated JSON", "fault-truncated-json", 502, NONSENSE),
    Fault("garbage", "fault-garbage-json", 502, NONSENSE),
    Fault("garbage events", "fault-garbage-sse", 502, NONSENSE),
    Fault("wrong shape", "fault-wrong-shape", 502, NONSENSE),
    Fault("broken UTF-8", "fault-bad-utf8", 502, NONSENSE),
    Fault("error inside a 200", "fault-error-in-200", 502, ("upstream_error",)),
    Fault("reset before the headers", "fault-reset", 502, ("upstream_unreachable",)),
    Fault("huge header", "fault-huge-header", 502, NONSENSE),
    Fault("huge line", "fault-huge-line@mb=2", 502, NONSENSE, whole=False),
    Fault("huge body", "fault-huge@mb=33", 502, NONSENSE, streamed=False),
    Fault("gzip bomb", "fault-gzip-bomb@mb=40", 502, NONSENSE),
    Fault("drip", "fault-drip", 504, ("upstream_timeout",), late=True, timeouts={**QUICK, "total_s": 0.5}),
    Fault("stream without an end", "fault-no-done@delay=0.03", 502, NONSENSE, midstream=True),
    Fault("end in the middle", "fault-eof-midstream@delay=0.03", 502, BROKEN, midstream=True),
    Fault("reset in the middle", "fault-reset-midstream@delay=0.03", 502, BROKEN, midstream=True),
    Fault("error in the middle", "fault-error-midstream@delay=0.03", 502, ("upstream_error",), midstream=True),
    Fault("silence in the middle", "fault-stall-midstream@delay=0.03", 504, ("upstream_timeout",), midstream=True, timeouts=QUICK),
]
WHOLE = [fault for fault in FAULTS if fault.whole]
EARLY = [fault for fault in FAULTS if fault.streamed and not fault.midstream]
MIDSTREAM = [fault for fault in FAULTS if fault.midstream]


@pytest.fixture(scope="module")
def ok_provider(control: Control, vendor: Vendor) -> dict[str, Any]:
    return control.provider(vendor.base_url)


@pytest.fixture(scope="module")
def aliases(control: Control, vendor: Vendor, ok_provider: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """For each fault an alias that has no other target, and one whose second target is well."""
    found = {}
    for fault in FAULTS:
        # Two providers: a credential that was limited rests, and must not rest for the other test.
        alone, first = (control.provider(fault.base_url or vendor.base_url, breaker=NEVER_OPENS, timeouts=fault.timeouts) for _ in range(2))
        alias = control.model(alone, fault.model_id)["alias"]
        with_spare = control.model(first, fault.model_id, priority=1)["alias"]
        control.model(ok_provider, "ok@tokens=4", alias=with_spare, priority=2)
        found[fault.name] = (alias, with_spare)
    control.apply()
    return found


def assert_refused(answer: Answer, fault: Fault, schema: Schema) -> None:
    assert answer.status == fault.status, answer
    assert answer.error["code"] in fault.codes
    schema.check("ErrorResponse", answer.json)
    assert answer.headers["content-type"].startswith("application/json")
    assert "<html" not in answer.body.decode().lower()


def assert_on_record(control: Control, answer: Answer, fault: Fault) -> list[dict[str, Any]]:
    """One usage record for each attempt the caller was told of, and one line in the request log."""
    rows = control.records(answer.request_id, int(answer.headers["x-llm-attempts"]))
    for row in rows:
        assert row["status"] == "error"
        assert row["error_code"] in fault.codes
        assert row["output_tokens"] == 0
        assert float(row["cost"] or 0) == 0
    log = control.request(answer.request_id)
    assert (log["status_code"], log["attempts"]) == (fault.status, len(rows))
    return rows


@pytest.mark.parametrize("fault", WHOLE, ids=str)
def test_a_whole_answer(control: Control, vendor: Vendor, aliases: dict[str, tuple[str, str]], schema: Schema, fault: Fault) -> None:
    mark = unique("mark")
    answer = wire.chat(control.base_url, control.key, aliases[fault.name][0], prompt=mark)
    assert_refused(answer, fault, schema)
    rows = assert_on_record(control, answer, fault)
    if not fault.base_url:
        assert len(vendor.calls(mark)) == len(rows)
    if fault.status == 504:
        until(lambda: vendor.was_left(mark), "the vendor is left when the time is over")
    if fault.status == 429:
        assert 1 <= int(answer.headers["retry-after"]) <= 7


@pytest.mark.parametrize("fault", EARLY, ids=str)
def test_a_stream_that_never_begins_is_no_stream(
    control: Control, aliases: dict[str, tuple[str, str]], schema: Schema, fault: Fault
) -> None:
    answer = wire.chat(control.base_url, control.key, aliases[fault.name][0], stream=True)
    assert_refused(answer, fault, schema)
    assert_on_record(control, answer, fault)


@pytest.mark.parametrize("fault", MIDSTREAM, ids=str)
def test_a_stream_that_breaks_ends_with_an_error_and_without_an_end_mark(
    control: Control, vendor: Vendor, aliases: dict[str, tuple[str, str]], schema: Schema, fault: Fault
) -> None:
    """What was forwarded is charged, and nothing is tried again: the client has seen the beginning."""
    mark = unique("mark")
    answer = wire.chat(control.base_url, control.key, aliases[fault.name][1], stream=True, prompt=mark)
    assert answer.status == 200
    *data, last = answer.events
    assert "[DONE]" not in answer.events
    schema.check("ErrorResponse", json.loads(last))
    assert json.loads(last)["error"]["code"] in fault.codes
    said = wire.said_streamed(json.loads(item) for item in data)
    assert said.texts[0], "the error came before any content, and should have been a status"
    assert len(vendor.calls(mark)) == 1
    (row,) = control.records(answer.request_id)
    assert (row["status"], row["usage_source"]) == ("error", "estimated")
    assert row["error_code"] in fault.codes
    assert row["input_tokens"] > 0
    assert row["output_tokens"] > 0
    assert control.request(answer.request_id)["status_code"] == fault.status


IN_TIME = [(fault, False) for fault in WHOLE if not fault.late] + [(fault, True) for fault in EARLY if not fault.late]


@pytest.mark.parametrize(("fault", "stream"), IN_TIME, ids=str)
def test_another_target_answers_where_the_first_fails_in_time(
    control: Control, aliases: dict[str, tuple[str, str]], ok_provider: dict[str, Any], fault: Fault, stream: bool
) -> None:
    answer = wire.chat(control.base_url, control.key, aliases[fault.name][1], stream=stream)
    assert answer.status == 200, answer
    if stream:
        assert answer.events[-1] == "[DONE]"
        said = wire.said_streamed(json.loads(item) for item in answer.events[:-1])
    else:
        said = wire.said_whole(answer.json)
    assert said.texts[0]
    assert said.finish_reasons == ["stop"]
    assert answer.headers["x-llm-provider"] == ok_provider["name"]
    *failed, last = control.records(answer.request_id, int(answer.headers["x-llm-attempts"]))
    assert {row["status"] for row in failed} == (set() if fault.rests and not failed else {"error"})
    assert last["status"] == "ok"
    assert last["provider"] == ok_provider["name"]


# The breaker --------------------------------------------------------------------------------------------------------


def test_the_breaker_opens_after_fail_max_and_the_vendor_is_left_alone(control: Control, vendor: Vendor) -> None:
    alias = control.model(control.provider(vendor.base_url, breaker={"fail_max": 2, "reset_timeout_s": 30}), "fault-500")["alias"]
    control.apply()
    mark = unique("mark")
    assert wire.chat(control.base_url, control.key, alias, prompt=mark).status == 502
    assert len(vendor.calls(mark)) == 2
    for stream in (False, True):
        paused = wire.chat(control.base_url, control.key, alias, prompt=mark, stream=stream)
        assert (paused.status, paused.error["code"]) == (503, "upstream_paused")
        assert 25 <= int(paused.headers["retry-after"]) <= 33  # 30 s, give or take a tenth so that callers do not return together
    assert len(vendor.calls(mark)) == 2


def test_an_open_breaker_leaves_the_work_to_the_next_target(control: Control, vendor: Vendor, ok_provider: dict[str, Any]) -> None:
    first = control.provider(vendor.base_url, breaker={"fail_max": 1, "reset_timeout_s": 30})
    alias = control.model(first, "fault-500", priority=1)["alias"]
    control.model(ok_provider, "ok@tokens=3", alias=alias, priority=2)
    control.apply()
    mark = unique("mark")
    for _ in range(3):
        answer = wire.chat(control.base_url, control.key, alias, prompt=mark)
        assert (answer.status, answer.headers["x-llm-provider"]) == (200, ok_provider["name"])
    assert [entry["model"] for entry in vendor.calls(mark)].count("fault-500") == 1


def test_a_breaker_lets_one_trial_through_at_a_time(control: Control, vendor: Vendor) -> None:
    """When the time is over one call reaches the vendor; it fails, and the breaker is open again at once."""
    provider = control.provider(vendor.base_url, breaker={"fail_max": 1, "reset_timeout_s": 3})
    alias = control.model(provider, "fault-500")["alias"]
    control.apply()
    first, second = unique("first"), unique("second")
    wire.chat(control.base_url, control.key, alias, first)
    assert len(vendor.calls(first)) == 1

    def tried_again() -> int:
        before = len(vendor.calls(second))
        status = wire.chat(control.base_url, control.key, alias, second).status
        calls = len(vendor.calls(second))
        assert status == (502 if calls > before else 503)
        return calls

    assert tried_again() == 0
    assert until(tried_again, "a trial is let through") == 1
    assert tried_again() == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_limited_credential_rests(control: Control, vendor: Vendor, stream: bool) -> None:
    """The vendor said how long; until then it is not asked again, and the caller is told the time that is left."""
    alias = control.model(control.provider(vendor.base_url), "fault-429@retry_after=30")["alias"]
    control.apply()
    mark = unique("mark")
    first = wire.chat(control.base_url, control.key, alias, prompt=mark, stream=stream)
    second = wire.chat(control.base_url, control.key, alias, prompt=mark, stream=stream)
    for answer in (first, second):
        assert (answer.status, answer.error["code"], answer.error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
        assert 20 <= int(answer.headers["retry-after"]) <= 30
    assert len(vendor.calls(mark)) == 1


def test_a_vendors_words_do_not_leak_our_credential(control: Control, vendor: Vendor) -> None:
    """A vendor that repeats the key it was sent, in its error, does not get it to our caller."""
    secret = "sk-planted-0123456789abcdef"
    alias = control.model(control.provider(vendor.base_url, api_key=secret), "fault-echo-key")["alias"]
    control.apply()
    for stream in (False, True):
        answer = wire.chat(control.base_url, control.key, alias, stream=stream)
        assert answer.status >= 400
        assert secret not in answer.body.decode()
        assert secret not in str(answer.headers)


def test_a_flood_of_failures_leaves_the_server_well(control: Control, aliases: dict[str, tuple[str, str]]) -> None:
    for fault in (fault for fault in WHOLE if fault.timeouts is not QUICK):
        wire.chat(control.base_url, control.key, aliases[fault.name][1])
    assert wire.chat(control.base_url, control.key, ECHO).status == 200


def test_an_open_breaker_is_shown_and_reset_without_a_restart(control: Control, vendor: Vendor) -> None:
    provider = control.provider(vendor.base_url, breaker={"fail_max": 1, "reset_timeout_s": 600})
    alias = control.model(provider, "fault-500")["alias"]
    control.apply()
    wire.chat(control.base_url, control.key, alias)
    mark = unique("mark")
    paused = wire.chat(control.base_url, control.key, alias, mark)
    assert (paused.status, vendor.calls(mark)) == (503, [])
    assert 500 < int(paused.headers["retry-after"]) <= 660

    def state() -> str:
        return str(control.call("GET", f"/api/v1/providers/{provider['name']}/status")["breaker"])

    until(lambda: state() == "open", "the open breaker is shown")
    control.call("POST", f"/api/v1/llm/providers/{provider['id']}/reset-breaker")
    until(lambda: wire.chat(control.base_url, control.key, alias, mark).status == 502, "the vendor is called again")
