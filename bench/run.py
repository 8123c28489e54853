"""`make bench`: what the gateway costs on one core, beside a bare relay in the same run and beside the vendor itself.

What is measured and how: docs/benchmarks.md. Exit status: 0 = measured, 1 = `--gate` and a figure is beyond its gate,
2 = the run could not give figures (an answer was wrong, a tool is missing, a process died).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench import load, report
from bench.load import FULL, JSON_C1, JSON_C16, QUICK, Scenario
from bench.processes import BenchFailed, cores, rss_mb
from bench.targets import ROOT, Target, recorded_requests, start_gateway, start_relay, start_stub

VAR = ROOT / "var"
_REST_STEP_S = 0.25
_REST_LIMIT_S = 20.0
_IDLE_SHARE = 0.08
_DRAIN_LIMIT_S = 30.0
_SATURATED = 0.85
_ATTEMPTS = 2  # of a run with --gate


@dataclass(frozen=True)
class Plan:
    """`rounds` are counted, one more warms up; each load lasts `seconds`."""

    scenarios: tuple[Scenario, ...]
    rounds: int
    seconds: int


PLANS = {"quick": Plan(QUICK, 5, 1), "full": Plan(FULL, 5, 1)}


class Bench:
    """All variants stay started; each round visits every one, in the opposite order on odd rounds."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.target_core, self.load_core = cores()
        os.sched_setaffinity(0, {self.load_core})  # this process too keeps off the target's core
        self.targets: list[Target] = []
        self.answer_bytes: dict[tuple[str, str], int] = {}  # (variant, scenario) →
        self.sent: dict[str, list[int]] = {}  # variant → [answered, broken off when a load ended, at most]

    def start(self, stack: ExitStack, self_test: bool) -> None:
        stub = self._keep(stack, start_stub(self.load_core, self.folder))
        self._keep(stack, start_relay("relay", stub, self.target_core, self.folder))
        if self_test:
            self._keep(stack, start_relay("gateway", stub, self.target_core, self.folder))
            return
        state = Path(tempfile.mkdtemp(prefix="state-", dir=self.folder))
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        say("starting the gateway on an empty state folder …")
        self._keep(stack, start_gateway(stub, self.plan.scenarios, self.target_core, self.folder, state))

    def _keep(self, stack: ExitStack, target: Target) -> Target:
        stack.callback(target.process.stop)
        self.targets.append(target)
        self.sent[target.name] = [0, 0]
        return target

    def probe(self, patience_s: float = 10.0) -> None:
        """Each variant must give each answer whole, before any is timed. New rows take up to two seconds to reach a worker."""
        for target in self.targets:
            deadline = time.monotonic() + patience_s
            for scenario in self.plan.scenarios:
                while True:
                    try:
                        self.answer_bytes[target.name, scenario.name] = load.probe(scenario, target.chat_url, target.key)
                        break
                    except BenchFailed:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.25)
                self.sent[target.name][0] += 1

    def run(self) -> report.Results:
        samples = [sample for number in range(self.plan.rounds + 1) for sample in self._round(number)]
        return report.Results(sample for sample in samples if sample.round > 0)

    def _round(self, number: int) -> list[report.Sample]:
        samples = []
        for scenario in self.plan.scenarios:
            visited = [t for t in self.targets if t.name != "direct" or scenario.with_direct]
            for target in reversed(visited) if number % 2 else visited:
                sample = self._sample(number, scenario, target)
                samples.append(sample)
                which = f"round {number}/{self.plan.rounds}" if number else "warm-up  "
                say(f"{which}  {scenario.name:<11} {target.name:<8} {sample.load.answers:>7.0f} answers {sample.cpu_us:>8.1f} CPU µs each")
        return samples

    def _sample(self, number: int, scenario: Scenario, target: Target) -> report.Sample:
        before = target.process.cpu_s()
        seconds, answer_bytes = self.plan.seconds * scenario.stretch, self.answer_bytes[target.name, scenario.name]
        done = load.wrk(scenario, target.chat_url, target.key, answer_bytes, seconds, self.load_core, self.folder)
        during = target.process.cpu_s() - before
        until_rest = self._rest(target) - before
        sent = self.sent[target.name]
        sent[0] += done.requests
        sent[1] += scenario.connections
        # What the relay does after a load is forwarding to nobody, which must not count against it.
        return report.Sample(number, scenario, target.name, done, until_rest if target.admin_token else during, during)

    def _rest(self, target: Target) -> float:
        """Waits until the target has finished what the load left behind (writing records to the database), which is its cost
        too, and keeps it out of the next variant's turn. → CPU seconds so far."""
        deadline, last = time.monotonic() + _REST_LIMIT_S, target.process.cpu_s()
        while True:
            time.sleep(_REST_STEP_S)
            now = target.process.cpu_s()
            if now - last <= _IDLE_SHARE * _REST_STEP_S or target.name == "direct":
                return now
            if time.monotonic() > deadline:
                say(f"  note: {target.name} was still working {_REST_LIMIT_S:g} s after the load")
                return now
            last = now

    def target(self, name: str) -> Target:
        return next(target for target in self.targets if target.name == name)


def say(text: str) -> None:
    print(text, flush=True)


def check_records(bench: Bench) -> tuple[str, bool]:
    """Every answered request must be in the usage records; those in flight when wrk hung up may be."""
    answered, in_flight = bench.sent["gateway"]
    gateway = bench.target("gateway")
    deadline = time.monotonic() + _DRAIN_LIMIT_S
    while (recorded := recorded_requests(gateway)) < answered and time.monotonic() < deadline:
        time.sleep(0.5)
    right = answered <= recorded <= answered + in_flight
    text = f"usage records: {recorded} for {answered} answered requests (and at most {in_flight} cut off when a load ended)"
    return text + ("" if right else ": WRONG"), right


def notes(results: report.Results, plan: Plan) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    for name in ("relay", "gateway"):
        busy = median(sample.busy for sample in results.of(JSON_C16, name))
        if busy < _SATURATED:
            found.append(f"the {name} was busy only {busy:.0%} at c16: other work on the machine, or the load tool, held it up")
    if not plan.rounds >= 3:
        found.append("fewer than three rounds: the spread says little")
    return found


def summarise(bench: Bench, results: report.Results) -> dict[str, object]:
    gateway = bench.target("gateway")
    pid = gateway.process.listener(gateway.port)
    return {
        "relay_ratio": round(results.throughput_ratio(JSON_C16).median, 3),
        "chunk_ratio": round(results.cost_ratio(load.STEADY).median, 3),
        "added_ms_p50": round(results.added_ms(JSON_C1, "direct").median, 3),
        "rss_mb": round(rss_mb(pid), 1),
        "relay_rss_mb": round(rss_mb(bench.target("relay").process.pid), 1),
        "spread": {
            "relay_ratio": results.throughput_ratio(JSON_C16).rounded(),
            "chunk_ratio": results.cost_ratio(load.STEADY).rounded(),
            "added_ms_p50": results.added_ms(JSON_C1, "direct").rounded(),
            "added_ms_p50_over_relay": results.added_ms(JSON_C1, "relay").rounded(),
        },
        "loads": report.details(results, bench.plan.scenarios),
        "notes": notes(results, bench.plan),
    }


def describe(bench: Bench) -> dict[str, object]:
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rounds": bench.plan.rounds,
        "seconds_per_load": bench.plan.seconds,
        "target_core": bench.target_core,
        "load_core": bench.load_core,
    }


def show(bench: Bench, results: report.Results, figures: dict[str, object]) -> None:
    say(f"\nMedians of {bench.plan.rounds} rounds of {bench.plan.seconds} s; ratios are paired within a round: median (min..max).\n")
    say(report.table(results, bench.plan.scenarios))
    over_stub, over_relay = results.added_ms(JSON_C1, "direct"), results.added_ms(JSON_C1, "relay")
    say(f"\nadded p50 at c=1: {over_stub.text(3)} ms over the stub, {over_relay.text(3)} ms over the relay")
    say(f"RSS after the load: gateway {figures['rss_mb']} MB, relay {figures['relay_rss_mb']} MB")
    for note in figures["notes"]:  # type: ignore[attr-defined]
        say(f"note: {note}")


def measure(plan: Plan, folder: Path, self_test: bool) -> tuple[dict[str, object], list[report.Judgement], bool]:
    with ExitStack() as stack:
        bench = Bench(plan, folder)
        say(f"target alone on core {bench.target_core}; stub and wrk on core {bench.load_core}")
        if bench.target_core == bench.load_core:
            say("note: there is only one core, so target, stub and wrk share it: throughput and p50 say little, CPU figures still hold")
        bench.start(stack, self_test)
        bench.probe()
        results = bench.run()
        figures = summarise(bench, results)
        show(bench, results, figures)
        right = True
        if not self_test:
            text, right = check_records(bench)
            say(text)
            figures["records"] = text
        judgements = report.judge(figures["relay_ratio"], figures["chunk_ratio"], figures["rss_mb"])  # type: ignore[arg-type]
        return figures | {"run": describe(bench)}, judgements, right


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.split("\n")[0])
    parser.add_argument("--gate", action="store_true", help="exit 1 when a figure is beyond its gate, twice in a row")
    parser.add_argument("--quick", action="store_true", help="three loads, for CI")
    parser.add_argument("--rounds", type=int, help="rounds that count")
    parser.add_argument("--seconds", type=int, help="how long each load lasts")
    parser.add_argument("--self-test", action="store_true", help="a second relay in the gateway's place: every ratio must come out near 1")
    options = parser.parse_args()
    base = PLANS["quick" if options.quick else "full"]
    plan = Plan(base.scenarios, options.rounds or base.rounds, options.seconds or base.seconds)
    folder = VAR / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    began = time.monotonic()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            figures, judgements, right = measure(plan, folder, options.self_test)
        except BenchFailed as failure:
            print(f"bench: {failure}", file=sys.stderr)
            return 2
        for judgement in judgements:
            say(judgement.text())
        passed = all(judgement.passed for judgement in judgements)
        if passed or not options.gate or not right or attempt == _ATTEMPTS:
            break
        say("a gate failed: other work on the machine can do that, so everything is measured once more")
    out = VAR / ("bench-self-test.json" if options.self_test else "bench.json")
    out.write_text(json.dumps(figures, indent=2) + "\n")
    say(f"{out.relative_to(ROOT)} written after {time.monotonic() - began:.0f} s")
    if not right:
        return 2
    return 1 if options.gate and not passed else 0


if __name__ == "__main__":
    sys.exit(main())
