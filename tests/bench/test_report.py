"""The benchmark's arithmetic: a wrong sign here would wave a slow gateway through."""

from __future__ import annotations

import pytest

from bench.load import JSON_C1, JSON_C16, STEADY, Load, Scenario
from bench.report import Results, Sample, judge, table


def sample(number: int, scenario: Scenario, variant: str, cpu_s: float, requests: int = 1000, p50_us: int = 200) -> Sample:
    return Sample(number, scenario, variant, Load(requests, requests, 1.0, p50_us, p50_us), cpu_s, cpu_s)


def test_a_gateway_that_costs_twice_the_relay_has_half_its_requests_per_cpu_second() -> None:
    results = Results([sample(1, JSON_C16, "relay", 0.1), sample(1, JSON_C16, "gateway", 0.2)])
    assert results.throughput_ratio(JSON_C16).median == pytest.approx(0.5)
    assert results.cost_ratio(JSON_C16).median == pytest.approx(2.0)


def test_ratios_are_paired_within_a_round_and_a_round_without_its_pair_is_left_out() -> None:
    first = [sample(1, JSON_C16, "relay", 0.1), sample(1, JSON_C16, "gateway", 0.15)]
    # The machine was twice as slow in round 2: unpaired medians would mix that into the ratio.
    second = [sample(2, JSON_C16, "gateway", 0.3), sample(2, JSON_C16, "relay", 0.2)]
    results = Results([*first, *second, sample(3, JSON_C16, "gateway", 9.0)])
    ratio = results.cost_ratio(JSON_C16)
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


def test_cost_is_per_request_and_per_content_event() -> None:
    steady = sample(1, STEADY, "gateway", 0.8, requests=100)
    assert steady.cpu_us == pytest.approx(8000)
    assert steady.cpu_us_per_chunk == pytest.approx(4.0)


def test_added_latency_is_over_the_stub_in_the_same_round() -> None:
    results = Results([sample(1, JSON_C1, "direct", 0.1, p50_us=20), sample(1, JSON_C1, "gateway", 0.1, p50_us=320)])
    assert results.added_ms(JSON_C1, "direct").median == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("figures", "failed"),
    [
        ((0.5, 2.0, 120.0), []),
        ((0.49, 1.0, 60.0), ["relay_ratio"]),
        ((0.9, 2.01, 60.0), ["chunk_ratio"]),
        ((0.9, 1.0, 120.1), ["rss_mb"]),
    ],
)
def test_the_gate(figures: tuple[float, float, float], failed: list[str]) -> None:
    assert [judgement.name for judgement in judge(*figures) if not judgement.passed] == failed


def test_goals_are_named_apart_from_gates() -> None:
    relay, chunk, _ = judge(0.55, 1.6, 60.0)
    assert relay.passed
    assert "goal NOT met" in relay.text()
    assert chunk.passed
    assert "goal NOT met" in chunk.text()


def test_the_table_has_a_line_per_measured_target() -> None:
    results = Results([sample(1, STEADY, "relay", 0.4, requests=100), sample(1, STEADY, "gateway", 0.6, requests=100)])
    lines = table(results, [STEADY]).splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["relay", "gateway"]
    assert lines[-1].endswith("1.50 (1.50..1.50)")
