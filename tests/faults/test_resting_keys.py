"""F27: a credential whose vendor said when to come back is called by nobody before, whichever process heard it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

from tests.faults.backends import ON_POSTGRES, ON_SQLITE
from tests.faults.database import Usage
from tests.faults.figures import Figures
from tests.faults.history import Row
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.stage import Stage
from tests.faults.vendor import Call

RETRY_AFTER_S, LONGER_S = 3, 6
LIMITED = f"fault-429@retry_after={RETRY_AFTER_S}"
AS_A_DATE = f"{LIMITED},date=1"
# The news of a refusal takes so long to other processes; and so long what one does in one go.
NEWS_S, TURN_S = 0.1, 0.05
PAUSE_S = 0.02
KEYS = ["sk-planted-first-0123456789", "sk-planted-other-0123456789"]


@pytest.mark.short
@ON_SQLITE
@pytest.mark.parametrize("model", [LIMITED, AS_A_DATE])
def test_f27_a_limited_key_rests_and_others_answer(stage: Stage, size: LoadSize, judge: Judge, model: str) -> None:
    others_answer(stage, size, judge, model, ", as a date" if model == AS_A_DATE else "")


@ON_POSTGRES
def test_f27_a_limited_key_rests_on_every_machine(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge) -> None:
    others_answer(new_stage(machines=2), size, judge, LIMITED, ", two machines")


def others_answer(stage: Stage, size: LoadSize, judge: Judge, model: str, where: str) -> None:
    alias = stage.model(model, provider=stage.provider(keys=KEYS))
    stage.model("ok@tokens=5", alias=alias, priority=2)
    figures = stage.check(stage.load(alias, size, pause_s=PAUSE_S).history(), expect_tokens=5)
    refused = [call for call in stage.vendor.ledger() if call.status == 429]
    assert {call.key for call in refused} == set(KEYS)
    too_early = during_a_rest(refused, figures, stage.database.usage())
    why = "\n".join([figures.explain(), *too_early[:50]])
    judge("F27", f"calls to a resting credential{where}", len(too_early), at_most=0, why=why)
    judge("F27", f"requests that fail beside a target that works{where}", figures.requests - figures.statuses["200"], at_most=0, why=why)
    judge("F27", f"AMP{where}", figures.amp, at_most=1.1, unit="×", why=why)


@pytest.mark.short
@ON_SQLITE
def test_f27_where_all_rest_the_client_learns_when_the_first_is_back(stage: Stage, size: LoadSize, judge: Judge) -> None:
    alias = stage.model(f"fault-429@retry_after={LONGER_S}", LIMITED)
    history = stage.load(alias, size, pause_s=PAUSE_S).history()
    figures = stage.check(history)
    refused = [call for call in stage.vendor.ledger() if call.status == 429]
    why = figures.explain()
    judge(
        "F27",
        "calls to a resting credential where all rest",
        len(during_a_rest(refused, figures, stage.database.usage())),
        at_most=0,
        why=why,
    )
    judge("F27", "refused with 429", 100 * sum(row.status == 429 for row in history) / len(history), at_least=100, unit="%", why=why)
    off_s = [off for row in history if (off := retry_after_off_s(row, refused)) is not None]
    assert len(off_s) > len(history) / 2
    judge("F27", "Retry-After off the smallest rest", max(off_s), at_most=1, unit="s", why=why)
    judge("F27", "AMP where all rest", figures.amp, at_most=1.1, unit="×", why=why)
    judge("F27", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=why)


def rest_s(call: Call) -> int:
    """What this refusal asked for."""
    return LONGER_S if f"retry_after={LONGER_S}" in call.model else RETRY_AFTER_S


def rests(refused: Sequence[Call]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Of each credential and model: from the first refusal to the end of the rest that it began."""
    found = defaultdict(list)
    for call in sorted(refused, key=lambda call: call.started):
        known = found[call.key, call.model]
        if not known or call.started > known[-1][1] - NEWS_S:
            ended = call.ended or time.time()
            known.append((ended, ended + rest_s(call)))
    return found


def during_a_rest(refused: Sequence[Call], figures: Figures, usage: Sequence[Usage]) -> list[str]:
    """Each in words: what a process began although it could know better. It could once it has begun anything at all NEWS_S after
    some process had read the refusal: one that waits for its turn on a busy machine reads nothing, and then all at once."""
    records = {attempt.call.n: attempt.usage for attempt in figures.attempts if attempt.call and attempt.usage}
    begun = defaultdict(list)
    for used in usage:
        begun[process_of(used)].append(used.started_at)
    early = []
    for place, periods in rests(refused).items():
        calls = [call for call in refused if (call.key, call.model) == place and call.n in records]
        for began, ended in periods:
            read_at = min((records[call.n].ended_at for call in calls if began <= (call.ended or 0.0) < ended), default=began)
            knows_at = {process: min((at for at in times if at > read_at + NEWS_S), default=ended) for process, times in begun.items()}
            early += [
                f"{call.key} {records[call.n].started_at - read_at:.3f} s after the refusal was read: {call}"
                for call in calls
                if knows_at[process_of(records[call.n])] + TURN_S < records[call.n].started_at < ended - NEWS_S
            ]
    return early


def process_of(used: Usage) -> str:
    """Request ids are a prefix of the process, and a counter."""
    return used.request_id[:-8]


def retry_after_off_s(row: Row, refused: Sequence[Call]) -> float | None:
    """How far what the client was told is from the whole seconds that were left between its question and the answer, whenever in
    between that was worked out; None where not all credentials rested just then."""
    ends = []
    for periods in rests(refused).values():
        ends += [end for start, end in periods if start < row.invoke_t and row.end_t < end]
    if len(ends) < len({call.model for call in refused}):
        return None
    told, least, most = int(row.headers["retry-after"]), math.ceil(min(ends) - row.end_t), math.ceil(min(ends) - row.invoke_t)
    return max(least - told, told - most, 0)
