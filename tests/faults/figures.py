"""The figures: three ledgers joined on what only one request has, its prompt's nonce and its request's id."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.database import Usage
from tests.faults.history import History, Row, quantile_of, secrets_in
from tests.faults.machine import Death
from tests.faults.vendor import Call

_BYTES_PER_TOKEN = 4  # how the product counts what no vendor counted
WINDOW_S = 1.0
RECOVERED = 0.99


class Attempt(NamedTuple):
    """One call of the vendor's and the usage record of it; None = there is none."""

    row: Row | None
    call: Call | None
    usage: Usage | None

    @property
    def charged(self) -> int:
        return self.usage.output_tokens + self._charged_input if self.usage else 0

    @property
    def sent(self) -> int:
        """In the unit of the record: the vendor's own tokens where it was the vendor who counted, else bytes of what it sent."""
        if self.call is None:
            return 0
        if self._estimated:
            return -(-self.call.text_bytes // _BYTES_PER_TOKEN)
        return self.call.prompt_tokens + self.call.tokens_sent if self.call.tokens_sent else 0

    @property
    def _estimated(self) -> bool:
        return self.usage is not None and self.usage.usage_source == "estimated"

    @property
    def _charged_input(self) -> int:
        """An estimate of the prompt is from the size of the client's body, which the vendor has never seen."""
        return 0 if self.usage is None or self._estimated else self.usage.input_tokens


@dataclass
class Figures:
    """README.md says what each one is. `attempts` is what they were worked out from."""

    requests: int = 0
    lost: int = 0
    use_lost: int = 0
    dup: int = 0
    drift_pct: float = 0.0
    answered_drift_pct: float = 0.0
    swap: int = 0
    amp: float = 0.0
    rec_s: float = 0.0
    errq_pct: float = 100.0
    short: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def explain(self) -> str:
        plain = {name: value for name, value in vars(self).items() if name not in ("attempts", "statuses", "examples")}
        return "\n".join([str(plain), str(dict(self.statuses)), *self.examples[:12]])


def work_out(
    history: History,
    calls: Sequence[Call],
    usage: Sequence[Usage],
    *,
    heard: Iterable[Row],
    deaths: Sequence[Death] = (),
    secrets: Sequence[str] = (),
    fault_end: float | None = None,
    expect_tokens: int | None = None,
) -> Figures:
    """`heard`: every row of the stage, whichever load it was of: their usage records are not the ones we look for."""
    figures = Figures(requests=len(history), statuses=history.statuses())
    mine = {row.nonce for row in history}
    calls = [call for call in calls if call.nonce in mine]
    figures.attempts = _join(history, calls, usage, {row.request_id for row in heard if row.request_id})
    _count_attempts(figures, usage)
    lost = [row for row in history.unknown if not _died_with(row, deaths)]
    figures.lost = len(lost)
    figures.swap = sum(row.swapped for row in history)
    figures.amp = len(calls) / len(history) if history else 0.0
    figures.errq_pct = _error_quality(figures, history, secrets)
    if expect_tokens is not None:
        figures.short = sum(row.tokens < expect_tokens for row in history.ok)
    if fault_end is not None:
        figures.rec_s = recovery_s(history, fault_end)
    figures.examples += [f"lost: {row.reason} after {row.latency_s:.3f} s, status {row.status}, {row.tokens} tokens" for row in lost]
    return figures


def double_charges(history: Iterable[Row], calls: Iterable[Call] | None, usage: Sequence[Usage]) -> int:
    """DUP of all that ever happened, also to clients that are in no history. `calls` None: nobody knows them any more.

    Requests of one nonce are taken together, since with an Idempotency-Key one call answers them all."""
    charges = {(used.request_id, used.attempt): used for used in usage}
    twice = len(usage) - len(charges)
    if calls is None:
        return twice
    nonces = {row.request_id: row.nonce for row in history if row.request_id}
    named = set(nonces.values())
    called = Counter((call.nonce if call.nonce in named else "", call.model) for call in calls)
    charged = Counter((nonces.get(used.request_id, ""), used.model_id) for used in charges.values() if used.output_tokens)
    return twice + (charged - called).total()


def recovery_s(history: Iterable[Row], fault_end: float) -> float:
    """From `fault_end` to the first second in which at least 99 % of what ended went well; infinite where none came."""
    ended = sorted((row.end_t, row.outcome == "ok") for row in history if row.end_t >= fault_end and not row.abandoned)
    for start in [fault_end, *(end for end, _ in ended)]:
        window = [ok for end, ok in ended if start <= end < start + WINDOW_S]
        if window and sum(window) >= RECOVERED * len(window):
            return start - fault_end
    return float("inf")


def iso(rows: Iterable[Row], baseline: Iterable[Row], quantile: float = 0.99) -> float:
    """p99 latency of traffic that does not touch the fault ÷ its baseline."""
    usual = quantile_of((row.latency_s for row in baseline), quantile)
    return quantile_of((row.latency_s for row in rows), quantile) / usual if usual else float("inf")


def _join(history: History, calls: Sequence[Call], usage: Sequence[Usage], known: set[str]) -> list[Attempt]:
    """By request where the client learnt its id. What is left over on both sides is of those who were cut off before."""
    calls_of, usage_of = defaultdict(list), defaultdict(list)
    for call in sorted(calls, key=lambda call: call.n):
        calls_of[call.nonce].append(call)
    for used in sorted(usage, key=lambda used: used.attempt):
        usage_of[used.request_id].append(used)
    attempts = []
    for row in history:
        if row.request_id:
            attempts += _pair(row, calls_of.pop(row.nonce, []), usage_of.pop(row.request_id, []))
    began = min((row.invoke_t for row in history), default=0.0) - 1
    rest = [used for id_, found in usage_of.items() if id_ not in known for used in found if used.started_at >= began]
    return attempts + _pair(None, [call for found in calls_of.values() for call in found], rest)


def _pair(row: Row | None, calls: Sequence[Call], usage: Iterable[Usage]) -> list[Attempt]:
    """One to one in order, of one vendor model each. Where there are more records than calls, those that charge nothing are
    of attempts that never reached the vendor."""
    records = defaultdict(list)
    for used in sorted(usage, key=lambda used: (not used.output_tokens, used.started_at)):
        records[used.model_id].append(used)
    wanted = Counter(call.model for call in calls)
    paired = {model: sorted(found[: wanted[model]], key=lambda used: used.started_at) for model, found in records.items()}
    attempts = [Attempt(row, call, paired[call.model].pop(0) if paired.get(call.model) else None) for call in calls]
    return attempts + [Attempt(row, None, used) for model, found in records.items() for used in found[wanted[model] :]]


def _count_attempts(figures: Figures, usage: Sequence[Usage]) -> None:
    lost = [attempt for attempt in figures.attempts if attempt.call and attempt.call.tokens_sent and not attempt.usage]
    # A record of an attempt that never reached the vendor is no double charge, unless it charges for an answer.
    extra = [attempt for attempt in figures.attempts if attempt.usage and not attempt.call and attempt.usage.output_tokens]
    twice = [key for key, count in Counter((used.request_id, used.attempt) for used in usage).items() if count > 1]
    figures.use_lost, figures.dup = len(lost), len(extra) + len(twice)
    pairs = [attempt for attempt in figures.attempts if attempt.call and attempt.call.how != "running"]
    figures.drift_pct = _drift_pct(pairs)
    figures.answered_drift_pct = _drift_pct([attempt for attempt in pairs if attempt.row and attempt.row.outcome == "ok"])
    figures.examples += [f"no usage record: {attempt.call}" for attempt in lost]
    figures.examples += [f"a record beyond the vendor's calls: {attempt.usage}" for attempt in extra]
    figures.examples += [f"drift: {a.charged} for {a.sent} of {a.call} {a.usage}" for a in pairs if a.charged != a.sent]


def _drift_pct(pairs: Sequence[Attempt]) -> float:
    sent = sum(attempt.sent for attempt in pairs)
    return 100 * abs(sum(attempt.charged for attempt in pairs) - sent) / sent if sent else 0.0


def _error_quality(figures: Figures, history: History, secrets: Sequence[str]) -> float:
    failed = [row for row in history.failed if row.status]
    bad = 0
    for row in failed:
        problems = [*row.problems, *(f"a secret: {secret}" for secret in secrets_in(row, secrets))]
        bad += bool(problems)
        figures.examples += [f"a bad error: {row.status} {problem}" for problem in problems]
    return 100 * (1 - bad / len(failed)) if failed else 100.0


def _died_with(row: Row, deaths: Iterable[Death]) -> bool:
    """Its own connection ended at a killed process."""
    return any(
        row.server_port == death.server_port
        and row.invoke_t <= death.gone_at + 0.05
        and death.at <= row.end_t
        and row.reason == "cut"
        and (death.ports is None or row.local_port in death.ports)
        for death in deaths
    )
