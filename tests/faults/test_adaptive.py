"""F33: a vendor that takes only so many calls at once, and tells nobody how many: the workers find out together."""

from __future__ import annotations

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.stage import Stage

AT_ONCE, CALL_S = 8, 0.2
MOST_PER_S = AT_ONCE / CALL_S
CLIENTS, FOUND_S, LOOKED_AT_S = 64, 10.0, 15.0
LEARNT = {"type": "adaptive", "capacity": 64, "refill_rate": 200}


@ON_SQLITE
@pytest.mark.parametrize("rest_s", [0, 1])
def test_f33_a_hidden_limit_is_found(stage: Stage, judge: Judge, rest_s: int) -> None:
    """`rest_s`: the vendor's refusals ask to stay away for so long; 0 = they ask for nothing."""
    retry_after, where = (rest_s, f", each refusal with Retry-After {rest_s}") if rest_s else ("", "")
    name = f"ok@cap={AT_ONCE},ttfb={CALL_S},retry_after={retry_after}"
    alias = stage.model(name, provider=stage.provider(rate_limit=LEARNT))
    load = stage.load(alias, LoadSize(CLIENTS, FOUND_S + LOOKED_AT_S, 0, 0))
    figures = stage.check(load.history())
    began = load.began + FOUND_S
    calls = [call for call in stage.vendor.ledger() if began <= call.started < began + LOOKED_AT_S]
    refused_pct = 100 * sum(call.status == 429 for call in calls) / len(calls)
    goodput = sum(call.status == 200 for call in calls) / LOOKED_AT_S / MOST_PER_S
    judge("F33", f"vendor's 429s after {FOUND_S:g} s{where}", refused_pct, at_most=2, unit="%", why=figures.explain())
    judge("F33", f"goodput{where}", 100 * goodput, at_least=90, unit="%", why=figures.explain())
    judge("F33", f"ERRQ{where}", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    judge("F33", f"USE_LOST{where}", figures.use_lost, at_most=0, why=figures.explain())
