"""Sums over what happened, by whatever is asked for: how many requests, errors and tokens, how much money, and how long it took.

All from the rollups, never from the ledger's own rows: a month costs the same however many requests it had. So times are whole
hours, in UTC.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import add
from typing import Any, Final

from django.db import models
from django.db.models import Q, QuerySet, Sum, Value

from core.money import plain
from monitoring import histogram
from monitoring.models import DURATION_COLUMNS, FIRST_TOKEN_COLUMNS, LabelRollup, Rollup

GROUPS: Final[Mapping[str, str]] = {
    "hour": "start",
    "day": "start",
    "team": "team_name",
    "key": "key_name",
    "provider": "provider_name",
    "model": "alias",
    "status": "status",
    "user": "end_user",
    "task_type": "task_type",
    "tag": "tag",
}
# What requests say of themselves has sums of its own: by day, and not by what they do not tell apart.
LABELS: Final = frozenset({"user", "task_type", "tag"})
_NOT_BY_LABEL: Final = frozenset({"hour", "provider", "status", "streamed"})
DEFAULT_DAYS: Final = 31
MAX_DAYS: Final = 400
MAX_DAYS_BY_HOUR: Final = 7
MAX_ROWS = 10_000
# A row of the answer is made of one for each currency, and at the edges of one for each hour.
_MAX_FOUND_PER_ROW: Final = 4

# The ledger's buckets are disjoint; here they are put together by direction and by what makes them cheap or dear.
_TOKENS: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": ("input_tokens", "input_audio_tokens", "input_image_tokens"),
    "cached_tokens": ("cached_input_tokens",),
    "cache_write_tokens": ("cache_write_tokens", "cache_write_1h_tokens"),
    "output_tokens": ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens"),
}
_COUNTS: Final[Mapping[str, str]] = {
    "requests": "requests",
    "errors": "failed_requests",
    "refused": "refused_requests",
    "attempts": "attempts",
    "failed_attempts": "failed_attempts",
    "unpriced_attempts": "unpriced_attempts",
    "unconverted_attempts": "unconverted_attempts",
}
_MONEY: Final = ("cost_micros", "cost_reporting_micros", "charged_micros")
NUMBERS: Final = (*_COUNTS.values(), *_MONEY, *(column for columns in _TOKENS.values() for column in columns))
_ATTEMPTS, _UNPRICED, _UNCONVERTED, _COST, _COST_REPORTING, _CHARGED = map(
    NUMBERS.index, ("attempts", "unpriced_attempts", "unconverted_attempts", *_MONEY)
)
_TOKEN_COLUMNS: Final = {name: slice(NUMBERS.index(columns[0]), NUMBERS.index(columns[-1]) + 1) for name, columns in _TOKENS.items()}
# What `cost_row` looks at. Over hundreds of thousands of rollups each column that is summed takes its milliseconds.
FOR_COSTS: Final = frozenset(NUMBERS) - {"refused_requests", "failed_attempts", *_TOKENS["output_tokens"]}
_DURATIONS: Final = (*DURATION_COLUMNS, *FIRST_TOKEN_COLUMNS)


class Refused(ValueError):
    """What was asked for is not answered; the message says why, and `parameter` what to change."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class Period:
    """From one whole hour up to, not including, another."""

    since: datetime
    until: datetime
    to_now: bool = False

    @classmethod
    def around(cls, since: datetime | None, until: datetime | None, now: datetime) -> Period:
        """The whole hours that hold these moments; by default the DEFAULT_DAYS up to and with this hour. Raises Refused."""
        until = until or now
        since = since or until - timedelta(days=DEFAULT_DAYS)
        if since >= until:
            raise Refused("since", f"This is not before `until`, {until.isoformat()}.")
        if until - since > timedelta(days=MAX_DAYS):
            raise Refused("since", f"These are more than {MAX_DAYS} days; ask for them in parts.")
        whole_until = _hour(until + timedelta(hours=1, microseconds=-1))
        return cls(_hour(since), whole_until, to_now=whole_until > now)

    def whole_days(self) -> Period:
        """The days, in UTC, that hold these hours."""
        return Period(_day(self.since), _day(self.until + timedelta(days=1, microseconds=-1)), self.to_now)

    def rollups(self, by_hour: bool) -> Q:
        """Whole days by the day, and what is left at both ends by the hour."""
        hours, days = Q(span_s=Rollup.Span.HOUR), Q(span_s=Rollup.Span.DAY)
        first, last = _day(self.since + timedelta(days=1, microseconds=-1)), _day(self.until)
        if self.to_now:  # today has nothing yet beyond this hour
            last += timedelta(days=1)
        if by_hour or first >= last:
            return hours & Q(start__gte=self.since, start__lt=self.until)
        inside = days & Q(start__gte=first, start__lt=last)
        return inside | (hours & (Q(start__gte=self.since, start__lt=first) | Q(start__gte=last, start__lt=self.until)))


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _day(moment: datetime) -> datetime:
    return _hour(moment).replace(hour=0)


@dataclass
class Sums:
    """One row of an answer. Money is in micros by currency; currencies are never added up."""

    numbers: Sequence[int] = (0,) * len(NUMBERS)
    durations: Sequence[int] = ()
    cost: dict[str, int] = field(default_factory=dict)
    cost_reporting: dict[str, int] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)

    def take(self, currency: str, reporting_currency: str, numbers: Sequence[int], durations: Sequence[int]) -> None:
        self._add(numbers, durations)
        if currency and numbers[_ATTEMPTS] > numbers[_UNPRICED]:
            self.cost[currency] = self.cost.get(currency, 0) + numbers[_COST]
        if reporting_currency and numbers[_ATTEMPTS] > numbers[_UNCONVERTED]:
            self.cost_reporting[reporting_currency] = self.cost_reporting.get(reporting_currency, 0) + numbers[_COST_REPORTING]
            self.charged[reporting_currency] = self.charged.get(reporting_currency, 0) + numbers[_CHARGED]

    def merge(self, other: Sums) -> None:
        self._add(other.numbers, other.durations)
        for theirs, ours in ((other.cost, self.cost), (other.cost_reporting, self.cost_reporting), (other.charged, self.charged)):
            for currency, micros in theirs.items():
                ours[currency] = ours.get(currency, 0) + micros

    def _add(self, numbers: Sequence[int], durations: Sequence[int]) -> None:
        self.numbers = list(map(add, self.numbers, numbers))
        self.durations = list(map(add, self.durations, durations)) if self.durations else durations

    def counts(self) -> dict[str, int]:
        return dict(zip(_COUNTS, self.numbers, strict=False))

    def tokens(self) -> dict[str, int]:
        return {name: sum(self.numbers[columns]) for name, columns in _TOKEN_COLUMNS.items()}

    def cached_share(self) -> float | None:
        """Of all that went in, how much the vendors had already; 0 to 1, None of nothing."""
        tokens = self.tokens()
        went_in = tokens["input_tokens"] + tokens["cached_tokens"] + tokens["cache_write_tokens"]
        return tokens["cached_tokens"] / went_in if went_in else None

    def per_1k_answers(self) -> dict[str, int]:
        """Micros by currency; what failed attempts cost is in it."""
        answered = self.counts()["requests"] - self.counts()["errors"]
        return {currency: round(micros * 1000 / answered) for currency, micros in self.cost.items()} if answered else {}

    def quantile_ms(self, share: float, first_token: bool = False) -> int | None:
        classes = len(DURATION_COLUMNS)
        return histogram.quantile(self.durations[classes:] if first_token else self.durations[:classes], share)


Grouped = dict[tuple[Any, ...], Sums]


def rollups_for(asked: Collection[str]) -> QuerySet[Any]:
    """The rollups that tell apart what is asked for: groups and filters by name. Raises Refused."""
    if not LABELS & set(asked):
        return Rollup.objects.all()
    if refused := sorted(_NOT_BY_LABEL & set(asked)):
        raise Refused(refused[0], "Users, task types and tags are summed by day, team, key and model only; leave this out.")
    return LabelRollup.objects.all()


def sums(
    rollups: QuerySet[Any], period: Period, group_by: Sequence[str], durations: bool = True, needed: Collection[str] = NUMBERS
) -> Grouped:
    """The sums of each combination of GROUPS that occurs, in order; of `rollups_for` labels for whole days, without durations.
    `needed`: columns; others are 0.

    Raises Refused.
    """
    if not set(group_by) <= set(GROUPS) or len(set(group_by)) < len(group_by):
        raise Refused("group_by", f"Write a comma list of {', '.join(GROUPS)}, each at most once.")
    by_hour = "hour" in group_by
    if by_hour and period.until - period.since > timedelta(days=MAX_DAYS_BY_HOUR, hours=1):
        raise Refused("group_by", f"By the hour no more than {MAX_DAYS_BY_HOUR} days are told; choose a shorter time or group by day.")
    grouped: Grouped = defaultdict(Sums)
    if rollups.model is LabelRollup:
        within, durations = Q(start__gte=period.since, start__lt=period.until), False
    else:
        within = period.rollups(by_hour)
    for group, money, numbers, counted in _found(rollups.filter(within), group_by, needed, _DURATIONS if durations else ()):
        grouped[group].take(*money, numbers, counted)
        if len(grouped) > MAX_ROWS:
            raise _too_many()
    return dict(sorted(grouped.items()))


def _found(
    rollups: QuerySet[Any], group_by: Sequence[str], needed: Collection[str], durations: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], tuple[str, str], Sequence[int], Sequence[int]]]:
    columns = list(dict.fromkeys(GROUPS[name] for name in group_by))
    # Of small integers a sum is an int already: Django would convert each of them once more.
    summed: dict[str, Any] = {f"sum_{name}": Sum(name) if name in needed else Value(0) for name in NUMBERS}
    summed |= {f"sum_{name}": Sum(name, output_field=models.Field()) for name in durations}
    found = rollups.order_by().values(*columns, "currency", "reporting_currency").annotate(**summed)
    words = [(_WORDS.get(name, str), columns.index(GROUPS[name])) for name in group_by]
    limit = MAX_ROWS * _MAX_FOUND_PER_ROW
    for number, row in enumerate(found.values_list(*columns, "currency", "reporting_currency", *summed)[: limit + 1]):
        if number == limit:
            raise _too_many()
        group = tuple(word(row[place]) for word, place in words)
        money, rest = row[len(columns) : len(columns) + 2], row[len(columns) + 2 :]
        yield group, money, rest[: len(NUMBERS)], rest[len(NUMBERS) :]


def hour_name(moment: datetime) -> str:
    """The group that holds this moment."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:00:00Z}"


def _day_name(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


_WORDS: Final[Mapping[str, Callable[[Any], str]]] = {"hour": lru_cache(maxsize=2048)(hour_name), "day": lru_cache(maxsize=2048)(_day_name)}


def _too_many() -> Refused:
    return Refused("group_by", f"These are more than {MAX_ROWS} rows; choose a shorter time or fewer groups.")


def total(all_sums: Iterable[Sums]) -> Sums:
    whole = Sums()
    for one in all_sums:
        whole.merge(one)
    return whole


def usage_row(one: Sums) -> dict[str, Any]:
    """A row of /usage/stats, without its group."""
    tokens = one.tokens()
    return {
        **one.counts(),
        **tokens,
        "total_tokens": sum(tokens.values()),
        "cost": _plain(one.cost),
        "p50_ms": one.quantile_ms(0.5),
        "p95_ms": one.quantile_ms(0.95),
        "first_token_p50_ms": one.quantile_ms(0.5, first_token=True),
        "first_token_p95_ms": one.quantile_ms(0.95, first_token=True),
    }


def cost_row(one: Sums) -> dict[str, Any]:
    """A row of /usage/costs, without its group."""
    share = one.cached_share()
    counts = one.counts()
    return {
        **{name: counts[name] for name in ("requests", "attempts", "unpriced_attempts", "unconverted_attempts")},
        "cost": _plain(one.cost),
        "cost_reporting": _plain(one.cost_reporting),
        "charged": _plain(one.charged),
        "cost_per_1k_answers": _plain(one.per_1k_answers()),
        "cached_share": None if share is None else round(share, 4),
    }


def _plain(micros: Mapping[str, int]) -> dict[str, str]:
    return {currency: plain(amount) for currency, amount in sorted(micros.items())}
