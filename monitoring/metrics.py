"""Every metric the product has, declared once. Labels are bounded: names of rows, outcomes, error codes; never ids or texts."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample
from prometheus_client.values import MutexValue

from core.chat import Usage
from core.money import MICROS

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
_TARGET = ("provider", "model")

REQUESTS = Counter("llm_requests_total", "Client requests that ended, by outcome", (*_TARGET, "outcome"))
DURATION = Histogram("llm_request_duration_seconds", "From the request's first byte in to the last byte out", _TARGET, buckets=_SECONDS)
FIRST_TOKEN = Histogram("llm_time_to_first_token_seconds", "From the request to its first content, streams only", _TARGET, buckets=_SECONDS)
ACTIVE = Gauge("llm_active_requests", "Client requests being answered", multiprocess_mode="livesum")
STREAMS = Counter("llm_streaming_requests_total", "Streams that ended well", _TARGET)
TOKENS = Counter("llm_tokens_total", "Tokens charged, by type", (*_TARGET, "type"))
COST = Counter("llm_cost_total", "Money charged, in units of the currency", (*_TARGET, "currency"))
ERRORS = Counter("llm_errors_total", "Client requests that ended in an error", ("code",))
RATE_LIMIT_HITS = Counter("llm_rate_limit_hits_total", "Refusals by a limit of ours or a vendor's", ("type",))
BREAKER_STATE = Gauge(
    "llm_circuit_breaker_state", "Worst breaker: 0 closed, 1 half open, 2 open", ("provider",), multiprocess_mode="mostrecent"
)
PROVIDER_REQUESTS = Counter("llm_provider_requests_total", "Calls to vendors, by outcome", (*_TARGET, "outcome"))
PROVIDER_ERRORS = Counter("llm_provider_errors_total", "Calls to vendors that failed", ("provider", "code"))
PROVIDER_LATENCY = Histogram("llm_provider_latency_seconds", "A vendor call, start to end", _TARGET, buckets=_SECONDS)
OVERHEAD = Histogram("llm_overhead_seconds", "What the gateway itself added to a whole answer", buckets=_OVERHEAD_SECONDS)
ACTIVE_TASKS = Gauge("llm_active_tasks", "Tasks that are being worked on in these processes", multiprocess_mode="livesum")
QUEUE_LENGTH = Gauge(
    "llm_queue_length", "Tasks that are due and wait for a worker, as workers see the queue; elsewhere 0", multiprocess_mode="mostrecent"
)
QUEUE_OLDEST = Gauge(
    "llm_queue_oldest_seconds",
    "For how long the one that waits longest has been due; 0 = none waits",
    multiprocess_mode="mostrecent",
)
JOURNAL_BACKLOG = Gauge(
    "llm_journal_backlog_bytes", "Of the journals of these processes, what is not in the ledger yet", multiprocess_mode="livesum"
)
JOURNAL_FAILING = Gauge(
    "llm_journal_failing_seconds", "Since the journal last could be entered into the ledger; 0 while it can", multiprocess_mode="livemax"
)
CONFIG_VERSION = Gauge("llm_config_version", "Version of the configuration in force", multiprocess_mode="livemin")
CONFIG_AGE = Gauge("llm_config_age_seconds", "Since the database last said what is in force; 0 while it does", multiprocess_mode="livemax")
CONFIG_ALARMS = Gauge("llm_config_alarms", "Configuration rows that cannot be used as they are", multiprocess_mode="livemax")
PROGRESS_FAILURES = Counter("llm_progress_failures_total", "Times that the progress of running streams could not be written down")
REDIS_UP = Gauge(
    "llm_redis_up", "Whether Redis answers: 1, or 0 = limits are each machine's share", ("redis",), multiprocess_mode="livemin"
)
BUDGET_USED = Gauge("llm_budget_used_ratio", "How much of a budget is used in its period", ("budget", "id"), multiprocess_mode="mostrecent")
USAGE_REFUSED = Counter(
    "llm_usage_refused_total", "Answers whose vendor counted tokens that cannot be, so that we counted", ("provider", "model")
)
BODIES_DROPPED = Counter("llm_bodies_dropped_total", "Requests whose bodies were to be kept, and were not: too many waited")
CACHE = Counter(
    "llm_cache_requests_total",
    "Requests to models whose answers may be given again, by what the cache had to do with them",
    (*_TARGET, "result"),
)
CACHE_SAVED = Counter(
    "llm_cache_saved_total", "What answers that were given again had cost, in units of the currency", (*_TARGET, "currency")
)
CACHE_BYTES = Gauge("llm_cache_bytes", "Memory of the answers that are kept", multiprocess_mode="livesum")
UNRECORDED = Counter("llm_unrecorded_total", "Answers whose records the journal did not take; they are in the log")


Add = Callable[[float], None]


# Adders go to the values themselves, past calls that look for labels, signs and exemplars which cannot be there, and past a
# lock: the event loop alone adds. That is prometheus_client's inside, so its version is pinned, and a test compares what
# comes out. Of several processes, each adds to a file by the value's own means.


def _adder(child: Counter | Gauge) -> Add:
    value: Any = child._value
    if type(value) is not MutexValue:
        add: Add = value.inc
        return add

    def add_here(amount: float) -> None:
        value._value += amount

    return add_here


def _observer(child: Histogram) -> Add:
    bounds, total, buckets = child._upper_bounds, child._sum, child._buckets

    def observe(amount: float) -> None:
        total.inc(amount)
        buckets[bisect_left(bounds, amount)].inc(1)

    def observe_here(amount: float) -> None:
        total._value += amount
        buckets[bisect_left(bounds, amount)]._value += 1

    return observe_here if type(total) is MutexValue else observe


class TargetMetrics:
    """What is counted of one provider and model. Children are bound once: looking labels up costs three times the counting."""

    def __init__(self, provider: str, model: str) -> None:
        self.provider, self.model = provider, model
        self._ok = _adder(REQUESTS.labels(provider, model, "ok"))
        self._duration = _observer(DURATION.labels(provider, model))
        self._first_token = _observer(FIRST_TOKEN.labels(provider, model))
        self._streams = _adder(STREAMS.labels(provider, model))
        self._input_tokens = _adder(TOKENS.labels(provider, model, "input"))
        self._output_tokens = _adder(TOKENS.labels(provider, model, "output"))
        self._provider_ok = _adder(PROVIDER_REQUESTS.labels(provider, model, "ok"))
        self._provider_latency = _observer(PROVIDER_LATENCY.labels(provider, model))
        self._overhead = _observer(OVERHEAD)
        self._cost: dict[str, Add] = {}

    def attempt(self, seconds: float, error_code: str | None) -> None:
        """A vendor call that ended; `error_code` None = well."""
        self._provider_latency(seconds)
        if error_code is None:
            self._provider_ok(1)
        else:
            PROVIDER_REQUESTS.labels(self.provider, self.model, "error").inc()
            PROVIDER_ERRORS.labels(self.provider, error_code).inc()

    def charged(self, usage: Usage, cost_micros: int | None, currency: str) -> None:
        self._input_tokens(usage.prompt_tokens)
        self._output_tokens(usage.completion_tokens)
        if usage.refused:
            USAGE_REFUSED.labels(self.provider, self.model).inc()
        if cost_micros:
            add = self._cost.get(currency)
            if add is None:
                add = self._cost[currency] = _adder(COST.labels(self.provider, self.model, currency))
            add(cost_micros / MICROS)

    def answered(self, seconds: float, overhead_s: float) -> None:
        """A whole answer. `overhead_s` is what we added to the vendor's time."""
        self._ok(1)
        self._duration(seconds)
        self._overhead(overhead_s)

    def given_again(self, seconds: float) -> None:
        """An answer that the cache had, or that came of another request."""
        self._ok(1)
        self._duration(seconds)

    def streamed(self, seconds: float, first_token_s: float) -> None:
        """A stream that ended well."""
        self._ok(1)
        self._streams(1)
        self._duration(seconds)
        self._first_token(first_token_s)

    def failed(self, seconds: float, outcome: str) -> None:
        """`outcome`: error | client_closed."""
        self._duration(seconds)
        REQUESTS.labels(self.provider, self.model, outcome).inc()


ACTIVE_ADD = _adder(ACTIVE)

# Names that dashboards made for other gateways look for.
ALIASES = {"llm_tokens_total": "llm_tokens_used_total", "llm_cost_total": "llm_provider_cost_total"}
_LINES = re.compile(rb"^(# (?:HELP|TYPE) )?(%b)(?=[ {]).*\n" % b"|".join(name.encode() for name in ALIASES), re.MULTILINE)


def with_aliases(exposition: bytes) -> bytes:
    """The exposition, and after it the families of ALIASES once more under their other names."""
    renamed = b"".join(
        (match[1] or b"") + ALIASES[match[2].decode()].encode() + match[0][match.end(2) - match.start() :]
        for match in _LINES.finditer(exposition)
    )
    return exposition + renamed


def samples() -> Iterator[Sample]:
    """Of every metric of the product, of all processes where PROMETHEUS_MULTIPROC_DIR is set; without those that tell ages of series."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    for family in registry.collect():
        if family.name.startswith("llm_"):
            yield from (sample for sample in family.samples if not sample.name.endswith("_created"))
