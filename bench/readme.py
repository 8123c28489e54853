"""The figures of the last whole `make bench` in the README: written by it, and by nobody else.

python -m bench.readme        from var/bench.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import report

ROOT = Path(__file__).resolve().parents[1]
README, FIGURES = ROOT / "README.md", ROOT / "var" / "bench.json"
BEGIN, END = "<!-- bench: written by `make bench` -->\n", "<!-- /bench -->"


def block(figures: Mapping[str, Any], processor: str) -> str:
    """The table. `figures` as bench.run writes them. Raises KeyError where that was no whole run."""
    run, chat = figures["run"], figures["loads"]["json c64"]["gateway"]
    lines = [
        f"Measured by `make bench` on {run['measured_at'][:10]}: {processor}, of which the gateway has one core; Python {run['python']}.",
        "",
        "| | measured | goal |",
        "|---|---|---|",
        f"| requests per second of CPU, 64 at a time | {chat['requests_per_cpu_s']:,.0f} | |",
        f"| the same, of a bare relay's in the same run | {figures['relay_ratio']:.2f} × | ≥ {report.RELAY_RATIO_GOAL:g} × |",
        f"| CPU for a chunk of a stream, of the relay's | {figures['chunk_ratio']:.2f} × | ≤ {report.CHUNK_RATIO_GOAL:g} × |",
        f"| added to a request that is alone, median | {figures['added_ms_p50']:.2f} ms | |",
        f"| memory of the process after all loads | {figures['rss_mb']:.0f} MB | < {report.RSS_MB_GOAL:.0f} MB |",
    ]
    return "\n".join(lines) + "\n"


def written(readme: str, table: str) -> str:
    """Raises ValueError where the place for it is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no place for figures: the lines {BEGIN.strip()} and {END}.")
    return before + BEGIN + table + END + after


def processor() -> str:
    """Of this machine, as Linux names it."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else 'an unnamed processor'}"


def main() -> int:
    README.write_text(written(README.read_text(), block(json.loads(FIGURES.read_text()), processor())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
