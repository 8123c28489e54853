"""Durations by size: what a quantile taken from counts may be off by."""

from __future__ import annotations

import pytest

from monitoring.histogram import CLASSES, counts, quantile


def test_every_duration_falls_into_one_class() -> None:
    assert sum(counts([0, 1, 15, 16, 22, 23, 2**40])) == 7
    assert counts([0, 15]) == [2, *[0] * (CLASSES - 1)]
    assert counts([16, 22]) == [0, 2, *[0] * (CLASSES - 2)]
    assert counts([23])[2] == 1
    assert counts([131_072, 2**40])[-1] == 2


@pytest.mark.parametrize("duration_ms", [16, 100, 812, 5_000, 90_000])
def test_a_quantile_lies_in_the_class_of_its_duration(duration_ms: int) -> None:
    for share in (0.01, 0.5, 0.95, 1.0):
        found = quantile(counts([duration_ms] * 10), share)
        assert found is not None
        assert duration_ms / 1.42 <= found <= duration_ms * 1.42


def test_quantiles_of_a_spread_are_close() -> None:
    spread = list(range(100, 2_000))
    assert quantile(counts(spread), 0.5) == pytest.approx(1_050, rel=0.05)
    assert quantile(counts(spread), 0.95) == pytest.approx(1_905, rel=0.05)


def test_nothing_has_no_median_and_the_last_class_no_end() -> None:
    assert quantile([0] * CLASSES, 0.5) is None
    assert quantile([], 0.5) is None
    assert quantile(counts([10**9]), 0.5) == 131_072
