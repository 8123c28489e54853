"""Figures out of samples: medians, ratios paired within a round, the table, the gate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from bench.load import Load, Scenario

VARIANTS = ("direct", "relay", "gateway")
# The gates hold what has been reached, with room for noise; they rise with it.
RELAY_RATIO_GATE, RELAY_RATIO_GOAL = 0.5, 0.6
CHUNK_RATIO_GATE, CHUNK_RATIO_GOAL = 2.0, 1.5
RSS_MB_GATE, RSS_MB_GOAL = 120.0, 119.9  # under 120, in the digits that are shown


@dataclass(frozen=True)
class Sample:
    """One load on one variant. `cpu_s` is the target's own; the gateway's includes what it did until it came to rest."""

    round: int
    scenario: Scenario
    variant: str
    load: Load
    cpu_s: float
    cpu_during_load_s: float

    @property
    def cpu_us(self) -> float:
        """CPU µs of the target per request."""
        return self.cpu_s / self.load.answers * 1e6

    @property
    def cpu_us_per_chunk(self) -> float:
        """The same per content event of a stream; its first, last and usage events are not counted as chunks."""
        return self.cpu_us / self.scenario.events if self.scenario.events else 0.0

    @property
    def busy(self) -> float:
        """The share of the load's time in which the target computed."""
        return self.cpu_during_load_s / self.load.duration_s


@dataclass(frozen=True)
class Spread:
    """A median with what lay around it."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"

    def rounded(self) -> dict[str, float]:
        return {"median": round(self.median, 4), "min": round(self.low, 4), "max": round(self.high, 4)}


def spread(values: Iterable[float]) -> Spread:
    listed = list(values)
    return Spread(median(listed), min(listed), max(listed))


class Results:
    """All samples of a run but the warm-up. Ratios compare two variants of one round only, then take the median."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)

    def of(self, scenario: Scenario, variant: str) -> list[Sample]:
        return [s for s in self.samples if s.scenario == scenario and s.variant == variant]

    def pairs(self, scenario: Scenario, one: str, other: str) -> list[tuple[Sample, Sample]]:
        others = {s.round: s for s in self.of(scenario, other)}
        return [(s, others[s.round]) for s in self.of(scenario, one) if s.round in others]

    def cost_ratio(self, scenario: Scenario) -> Spread:
        """The gateway's CPU per request over the relay's; for streams that is also the ratio per chunk."""
        return spread(gateway.cpu_us / relay.cpu_us for gateway, relay in self.pairs(scenario, "gateway", "relay"))

    def throughput_ratio(self, scenario: Scenario) -> Spread:
        """The gateway's requests per CPU-second over the relay's."""
        return spread(relay.cpu_us / gateway.cpu_us for gateway, relay in self.pairs(scenario, "gateway", "relay"))

    def added_ms(self, scenario: Scenario, base: str) -> Spread:
        """What the gateway adds to the p50 of `base`, ms."""
        return spread((a.load.p50_us - b.load.p50_us) / 1000 for a, b in self.pairs(scenario, "gateway", base))


_COLUMNS = (("req/CPU-s", 10), ("CPU µs/req", 12), ("µs/chunk", 10), ("p50 ms", 9), ("p99 ms", 9), ("req/s", 9), ("busy", 7))


def table(results: Results, scenarios: Iterable[Scenario]) -> str:
    head = f"{'load':<12}{'target':<10}" + "".join(f"{title:>{width}}" for title, width in _COLUMNS) + "  CPU, gateway / relay"
    lines = [head, "-" * len(head)]
    for scenario in scenarios:
        for variant in VARIANTS:
            if samples := results.of(scenario, variant):
                ratio = results.cost_ratio(scenario).text() if variant == "gateway" else ""
                lines.append(_row(scenario, variant, samples) + ratio)
    return "\n".join(lines)


def _row(scenario: Scenario, variant: str, samples: list[Sample]) -> str:
    cpu_us = median(s.cpu_us for s in samples)
    chunk = f"{median(s.cpu_us_per_chunk for s in samples):.2f}" if scenario.events else ""
    p50_ms, p99_ms = median(s.load.p50_us for s in samples) / 1000, median(s.load.p99_us for s in samples) / 1000
    per_s = median(s.load.answers / s.load.duration_s for s in samples)
    busy = median(s.busy for s in samples)
    cells = (f"{1e6 / cpu_us:.0f}", f"{cpu_us:.1f}", chunk, f"{p50_ms:.3f}", f"{p99_ms:.2f}", f"{per_s:.0f}", f"{busy:.0%}")
    return f"{scenario.name:<12}{variant:<10}" + "".join(f"{cell:>{w}}" for cell, (_, w) in zip(cells, _COLUMNS, strict=True)) + "  "


def details(results: Results, scenarios: Iterable[Scenario]) -> dict[str, object]:
    """The same figures for var/bench.json."""
    found: dict[str, object] = {}
    for scenario in scenarios:
        figures: dict[str, object] = {v: _figures(samples) for v in VARIANTS if (samples := results.of(scenario, v))}
        found[scenario.name] = figures | {"cpu_gateway_over_relay": results.cost_ratio(scenario).rounded()}
    return found


def _figures(samples: list[Sample]) -> dict[str, object]:
    figures: dict[str, object] = {
        "requests": sum(s.load.requests for s in samples),
        "requests_per_cpu_s": round(1e6 / median(s.cpu_us for s in samples), 1),
        "cpu_us_per_request": spread(s.cpu_us for s in samples).rounded(),
        "p99_ms": spread(s.load.p99_us / 1000 for s in samples).rounded(),
        "p50_ms": spread(s.load.p50_us / 1000 for s in samples).rounded(),
        "busy": round(median(s.busy for s in samples), 3),
    }
    if samples[0].scenario.events:
        figures["cpu_us_per_chunk"] = spread(s.cpu_us_per_chunk for s in samples).rounded()
    return figures


@dataclass(frozen=True)
class Judgement:
    """One promised figure beside its gate and its goal."""

    name: str
    value: float
    gate: float
    goal: float
    higher_is_better: bool = False

    def _meets(self, bound: float) -> bool:
        return self.value >= bound if self.higher_is_better else self.value <= bound

    @property
    def passed(self) -> bool:
        return self._meets(self.gate)

    def text(self) -> str:
        sign = "≥" if self.higher_is_better else "≤"
        goal = "goal met" if self._meets(self.goal) else "goal NOT met"
        gate = "gate passed" if self.passed else "gate FAILED"
        return f"{self.name:<12} {self.value:>7.2f}   goal {sign} {self.goal:g}: {goal}; gate {sign} {self.gate:g}: {gate}"


def judge(relay_ratio: float, chunk_ratio: float, rss_mb: float) -> list[Judgement]:
    return [
        Judgement("relay_ratio", relay_ratio, RELAY_RATIO_GATE, RELAY_RATIO_GOAL, higher_is_better=True),
        Judgement("chunk_ratio", chunk_ratio, CHUNK_RATIO_GATE, CHUNK_RATIO_GOAL),
        Judgement("rss_mb", rss_mb, RSS_MB_GATE, RSS_MB_GOAL),
    ]
