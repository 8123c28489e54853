"""The short way into prometheus_client counts what the long way would."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY, Counter, Histogram

from core.chat import Usage
from monitoring import metrics


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("amount", [-1.0, 0.0, 0.005, 0.0050001, 0.3, 600.0, 10_000.0])
def test_an_observation_lands_in_the_bucket_the_library_would_choose(amount: float) -> None:
    long_way = Histogram("long_way", "", buckets=(0.005, 0.01, 0.5, 600), registry=None)
    short_way = Histogram("long_way", "", buckets=(0.005, 0.01, 0.5, 600), registry=None)
    long_way.observe(amount)
    metrics._observer(short_way)(amount)
    assert _samples(short_way) == _samples(long_way)


def test_a_counter_counts() -> None:
    counter = Counter("counted", "", registry=None)
    metrics._adder(counter)(2)
    counter.inc()
    assert [sample.value for sample in next(iter(counter.collect())).samples if sample.name == "counted_total"] == [3.0]


def test_an_answer_is_visible_under_its_provider_and_model() -> None:
    target = metrics.TargetMetrics("metrics-p", "metrics-m")
    target.attempt(0.2, None)
    target.attempt(0.2, "upstream_error")
    target.charged(Usage(input=3, cached_input=4, output=5), 2_500_000, "USD")
    target.answered(0.3, 0.001)
    target.streamed(2, 0.2)
    target.failed(1, "error")
    names = {"provider": "metrics-p", "model": "metrics-m"}
    assert value("llm_requests_total", **names, outcome="ok") == 2
    assert value("llm_requests_total", **names, outcome="error") == 1
    assert value("llm_tokens_total", **names, type="input") == 7
    assert value("llm_tokens_total", **names, type="output") == 5
    assert value("llm_cost_total", **names, currency="USD") == 2.5
    assert value("llm_provider_requests_total", **names, outcome="ok") == 1
    assert value("llm_provider_errors_total", provider="metrics-p", code="upstream_error") == 1
    assert value("llm_request_duration_seconds_count", **names) == 3
    assert value("llm_time_to_first_token_seconds_bucket", **names, le="0.25") == 1


def _samples(histogram: Histogram) -> list[tuple[str, str | None, float]]:
    found = next(iter(histogram.collect())).samples
    return [(sample.name, sample.labels.get("le"), sample.value) for sample in found if not sample.name.endswith("_created")]
