"""F32: a vendor that does not count, or counts nonsense, is counted by us, and the record says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.stage import Stage

TOKENS = 200
PROMPT = "cat " * 500  # four bytes a token, as usual in English
INPUT_MICROS, OUTPUT_MICROS = 3, 6  # of one token, of the price below


@ON_SQLITE
@pytest.mark.parametrize("name", ["fault-no-usage", "fault-bad-usage", "fault-huge-usage"])
def test_f32_what_the_vendor_does_not_count_is_estimated(new_stage: Callable[..., Stage], judge: Judge, name: str) -> None:
    stage = new_stage(workers=1)
    alias = stage.model(f"{name}@tokens={TOKENS}", price=("3.00", "6.00"), context_window=100_000)
    rows = History(stage.ask(alias, f"nonce:{number} {PROMPT}", stream=number % 2 == 0) for number in range(20))
    figures = stage.check(rows)
    assert (len(rows.ok), len(figures.attempts)) == (20, 20), figures.explain()
    calls = [attempt.call for attempt in figures.attempts if attempt.call]
    usage = [attempt.usage for attempt in figures.attempts if attempt.usage]
    truth = sum(call.prompt_tokens * INPUT_MICROS + call.tokens_sent * OUTPUT_MICROS for call in calls)
    charged = [used.cost_micros or 0 for used in usage]
    says = "estimated" if name == "fault-no-usage" else "refused"  # estimated too, and why
    estimated = [used for used in usage if used.usage_source == says]
    judge("F32", "records that say they are estimated", 100 * len(estimated) / len(usage), at_least=100, unit="%", why=figures.explain())
    off_pct = 100 * abs(sum(charged) / truth - 1)
    judge("F32", "charge beside the truth", off_pct, at_most=20, unit="%", why=f"{sum(charged)} for {truth}\n{figures.explain()}")
    judge("F32", "negative charges", sum(micros < 0 for micros in charged), equals=0)
