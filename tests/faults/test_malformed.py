"""F23, F24, F25 and F30: what a vendor sends instead of an answer becomes an error, and costs neither memory nor a worker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.history import History, Row
from tests.faults.judge import Judge
from tests.faults.raw import read_raw
from tests.faults.stage import Stage

pytestmark = ON_SQLITE

NEVER_OPENS = {"fail_max": 1000, "reset_timeout_s": 1}
STAYS_OPEN = {"fail_max": 5, "reset_timeout_s": 60}
NONSENSE = ("fault-garbage-json", "fault-html-200", "fault-wrong-shape", "fault-huge-header")
BOTH_WAYS = (
    *NONSENSE,
    *(
        "fault-error-in-200",
        "fault-gzip-bomb@mb=64",
        "fault-bad-utf8",
        "fault-eof-midstream@delay=0.03",
        "fault-reset-midstream@delay=0.03",
    ),
)
STREAMING = ("fault-garbage-sse", "fault-error-midstream@delay=0.03", "fault-no-done@delay=0.03")
# What their bodies hold that an administrator wants to see.
SEEN_IN_THE_LOG = ("captive portal", "not json at all", "result")
WORDS = 20
MAX_RSS_MB = 64


@pytest.mark.short
def test_f23_nothing_malformed_is_passed_on_as_an_answer(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(workers=1)
    provider = stage.provider(breaker=NEVER_OPENS)
    aliases = {name: stage.model(name, provider=provider) for name in (*BOTH_WAYS, *STREAMING)}
    rows = History(stage.ask(aliases[name], stream=stream) for name, stream in cases())
    figures = stage.check(rows)
    wrong = [
        f"{case}: {row.status} {row.reason} {row.text!r} {row.problems}" for case, row in zip(cases(), rows, strict=True) if not told(row)
    ]
    judge("F23", "malformed answers that became errors (G15)", len(rows) - len(wrong), equals=21, why="\n".join(wrong))
    judge("F23", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    nonsense = rows.where(lambda row: row.alias in {aliases[name] for name in NONSENSE})
    named = nonsense.where(lambda row: (row.status, row.code) == (502, "upstream_invalid_response"))
    judge("F23", "502 upstream_invalid_response", len(named), equals=2 * len(NONSENSE), why=str(nonsense.statuses()))
    log = stage.machine.log_text()
    judge("F23", "kinds of body whose excerpt is in the log", sum(text in log for text in SEEN_IN_THE_LOG), equals=3, why=log[-3000:])
    passed_on = [row for row in rows if any(text.encode() in row.error_body for text in SEEN_IN_THE_LOG[:2])]
    judge("F23", "excerpts in the client's error", len(passed_on), equals=0)
    judge("F23", "secrets in the log", sum(secret in log for secret in stage.secrets), equals=0)
    judge("F23", "longest line of the log", max(map(len, log.splitlines())), at_most=1024, unit="characters")


@pytest.mark.short
def test_f23_f30_the_breaker_counts_and_another_target_answers(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(workers=1)
    names = (*NONSENSE, "fault-error-in-200")
    lonely = {name: stage.model(name, provider=stage.provider(breaker=STAYS_OPEN)) for name in names}
    helped = {
        name: stage.model(name, "ok@tokens=6", provider=stage.provider(breaker=NEVER_OPENS))
        for name in (*names, "fault-error-midstream@delay=0.03")
    }
    failed = History(stage.ask(alias, stream=number % 2 == 0) for alias in lonely.values() for number in range(8))
    figures = stage.check(failed)
    calls = {name: sum(attempt.call.model == name for attempt in figures.attempts if attempt.call) for name in names}
    judge("F23", "calls until the breaker opens", max(calls[name] for name in NONSENSE), equals=5, why=str(calls))
    judge("F30", "calls until the breaker opens", calls["fault-error-in-200"], equals=5, why=str(calls))
    paused = failed.where(lambda row: row.status == 503 and "retry-after" in row.headers)
    judge("F30", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    assert failed.statuses().keys() <= {"502 upstream_invalid_response", "502 upstream_error", "503 upstream_paused"}, failed.statuses()
    assert len(paused) >= len(names)

    answers = History(stage.ask(alias, stream=stream) for alias in helped.values() for stream in (False, True))
    figures = stage.check(failed + answers)
    midstream = answers.where(lambda row: row.stream and row.alias == helped["fault-error-midstream@delay=0.03"])
    judge("F23", "answered by the next target", len(answers.ok), equals=2 * len(helped) - 1, why=str(answers.statuses()))
    judge("F30", "streams tried again after content", len(midstream.ok), equals=0, why=str(answers.statuses()))
    judge("F30", "error events in mid-stream", sum(told(row) for row in midstream), equals=1, why=figures.explain())
    empty = [attempt.usage for attempt in figures.attempts if attempt.usage and attempt.call and not attempt.call.tokens_sent]
    assert empty
    judge("F30", "charged where no content came", sum(usage.cost_micros or 0 for usage in empty), equals=0, unit="µ$")
    judge("F30", "DRIFT of what content came", figures.drift_pct, at_most=0.1, unit="%", why=figures.explain())


@pytest.mark.short
def test_f24_streams_cut_anywhere_are_read_and_garbage_crashes_nobody(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(workers=1)
    provider = stage.provider(breaker=NEVER_OPENS)
    whole, split, *bad = (
        stage.model(f"{name}@tokens={WORDS}", provider=provider) for name in ("ok", "fault-split", "fault-garbage-sse", "fault-bad-utf8")
    )
    pid = stage.machine.pid
    prompts = [f"nonce:{number} 你好 – ünïcode" for number in range(5)]
    pairs = [(exact(stage, whole, prompt, stream), exact(stage, split, prompt, stream)) for prompt in prompts for stream in (True, False)]
    assert all(len(one) > WORDS for one, _ in pairs)
    judge(
        "F24", "answers cut into pieces that differ from whole ones", sum(one != other for one, other in pairs), equals=0, why=str(pairs[0])
    )
    rows = History(stage.ask(alias, stream=stream) for alias in bad for stream in (True, False) for _ in range(10))
    judge("F24", "garbage that became an error", 100 * sum(map(told, rows)) / len(rows), at_least=100, unit="%", why=str(rows.statuses()))
    judge("F24", "ERRQ", stage.check(rows).errq_pct, at_least=100, unit="%")
    judge("F24", "workers that crashed", int(stage.machine.workers() != [pid]), equals=0)
    assert stage.ask(whole, stream=True).outcome == "ok"


def cases() -> Iterable[tuple[str, bool]]:
    yield from ((name, stream) for name in BOTH_WAYS for stream in (False, True))
    yield from ((name, True) for name in STREAMING)


def told(row: Row) -> bool:
    """The client knows that it has no whole answer: a status and an error of the right form, or an event and no end mark."""
    return row.outcome == "fail" and row.error is not None and not row.problems and not row.done


def exact(stage: Stage, alias: str, prompt: str, stream: bool) -> bytes:
    """Byte for byte, but for the vendor's number of the answer and the name of the model that was asked."""
    raw = asyncio.run(read_raw(stage, alias, prompt, stream=stream))
    assert raw.status == 200
    return re.sub(rb"chatcmpl-\d+|(ok|fault-split)@tokens=\d+", b"", raw.body)


@pytest.mark.parametrize("name", ["fault-huge@mb=256", "fault-huge-line@mb=64", "fault-gzip-bomb@mb=1024"])
def test_f25_no_answer_takes_more_memory_than_its_bound(new_stage: Callable[..., Stage], judge: Judge, name: str) -> None:
    stage = new_stage(workers=1)
    provider = stage.provider(breaker=NEVER_OPENS)
    alias, well = stage.model(name, provider=provider), stage.model("ok@tokens=6", provider=provider)
    pid = stage.machine.pid
    assert stage.ask(well, stream=True).outcome == "ok"
    with peak(pid) as whole:
        plain = stage.ask(alias)
    judge("F25", f"RSS of {name}, whole", whole.over_mb, at_most=MAX_RSS_MB, unit="MB")
    assert (plain.status, plain.code) == (502, "upstream_invalid_response"), plain
    seen = Skimmed()
    with peak(pid) as stream:
        streamed = asyncio.run(read_raw(stage, alias, stream=True, skim=seen))
    judge("F25", f"RSS of {name}, streamed", stream.over_mb, at_most=MAX_RSS_MB, unit="MB")
    if name.startswith("fault-huge@"):  # every event is within bounds, and no stream is too long
        assert (streamed.status, seen.last.count(b"[DONE]")) == (200, 1)
        assert seen.size > 256 * 2**20
    else:
        assert streamed.status == 502
    judge("F25", "workers that died", int(stage.machine.workers() != [pid]), equals=0)
    assert stage.ask(well, stream=True).outcome == "ok"


class Peak:
    over_mb = 0.0


@contextmanager
def peak(pid: int) -> Iterator[Peak]:
    """Resident memory by the kernel's own high-water mark: what is taken and given back in milliseconds is in it too."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the mark falls to what is resident now
    found, before_mb = Peak(), high_water_mb(pid)
    yield found
    found.over_mb = high_water_mb(pid) - before_mb


def high_water_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class Skimmed:
    """Of an answer that nobody could keep: how long it is, and its end."""

    def __init__(self) -> None:
        self.size, self.last = 0, b""

    def __call__(self, data: bytes) -> None:
        self.size += len(data)
        self.last = (self.last + data)[-100:]
