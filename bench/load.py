"""What is sent, and the tool that sends it: wrk with one thread and a generated script per scenario."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchFailed

_TIMEOUT_S = 20
_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
wrk.body = [==[%s]==]
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %%d, "duration_us": %%d, "bytes": %%d, "p50_us": %%d, "p99_us": %%d, "bad": %%d}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Scenario:
    """One kind of load. `model` tells the stub what to answer; `events` is the number of content events of a stream, 0 = JSON."""

    name: str
    model: str
    connections: int
    events: int = 0
    with_direct: bool = False
    stretch: int = 1  # times as long as the other loads
    cut: bool = False  # long streams: many are still open when a load ends, so what arrived is counted by its bytes

    def body(self) -> str:
        request: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "You answer in one short paragraph."},
                {"role": "user", "content": "What does a gateway do that a relay does not?"},
            ],
            "temperature": 0.2,
            "max_tokens": 256,
        }
        if self.events:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(request)


JSON_C1 = Scenario("json c1", "bench", 1, with_direct=True)
JSON_C16 = Scenario("json c16", "bench", 16, with_direct=True)
JSON_C64 = Scenario("json c64", "bench", 64)
STEADY = Scenario("steady", "bench-steady-2000", 64, 2000, stretch=2, cut=True)
FLOOD = Scenario("flood", "bench-flood-2000", 1, 2000)
SHORT_STREAM = Scenario("stream 8", "bench-stream-8", 1, 8)
PACED = Scenario("paced 20", "bench-paced-20", 64, 20, stretch=2, cut=True)
QUICK = (JSON_C1, JSON_C16, STEADY)
FULL = (JSON_C1, JSON_C16, JSON_C64, STEADY, FLOOD, SHORT_STREAM, PACED)


@dataclass(frozen=True)
class Load:
    """What wrk counted. `answers` has the fractions of streams that a load's end cut; `p50_us` and `p99_us`: from a request to the
    end of its answer."""

    requests: int
    answers: float
    duration_s: float
    p50_us: int
    p99_us: int


def wrk(scenario: Scenario, url: str, key: str, answer_bytes: int, seconds: int, core: int, folder: Path) -> Load:
    """One load; `answer_bytes` is what `probe` found. Raises BenchFailed when any answer was not 2xx, late or broken off."""
    script = folder / "load.lua"
    script.write_text(_SCRIPT % (key, scenario.body()))
    command = ["taskset", "-c", str(core), tool("wrk"), "-t", "1", "-c", str(scenario.connections), "-d", f"{seconds}s"]
    command += ["--timeout", f"{_TIMEOUT_S}s", "-s", str(script), url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * _TIMEOUT_S, check=False)
    lines = ended.stdout.strip().splitlines()
    if ended.returncode or not lines or not lines[-1].startswith("{"):
        raise BenchFailed(f"wrk failed on {url}: {ended.stderr or ended.stdout}")
    counted = json.loads(lines[-1])
    if counted["bad"] or not counted["requests"]:
        raise BenchFailed(
            f"{scenario.name} on {url}: some answers were not whole 2xx, figures would mean nothing. wrk said:\n{ended.stdout}"
        )
    answers = counted["bytes"] / answer_bytes if scenario.cut else counted["requests"]
    return Load(counted["requests"], answers, counted["duration_us"] / 1e6, counted["p50_us"], counted["p99_us"])


def probe(scenario: Scenario, url: str, key: str) -> int:
    """One request, its answer read closely: a fast wrong answer must not win. → its bytes, chunk framing left out.
    Raises BenchFailed."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, scenario.body().encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            text = response.read().decode()
            head_bytes = 17 + sum(len(name) + len(value) + 4 for name, value in response.headers.items())
    except urllib.error.HTTPError as error:
        raise BenchFailed(f"{scenario.name} on {url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None
    if not (_whole_stream(text, scenario.events) if scenario.events else _whole_answer(text)):
        raise BenchFailed(f"{scenario.name} on {url}: the answer is not what the stub said. It begins: {text[:500]!r}")
    return head_bytes + len(text)


def _whole_answer(text: str) -> bool:
    answer = json.loads(text)
    return bool(answer["choices"][0]["message"]["content"]) and answer["usage"]["total_tokens"] == 59


def _whole_stream(text: str, events: int) -> bool:
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    chunks = [json.loads(item) for item in data[:-1]]
    words = sum(1 for chunk in chunks for choice in chunk["choices"] if choice["delta"].get("content"))
    usage = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
    return data[-1] == "[DONE]" and words == events and usage == [events]


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise BenchFailed(f"{name} is not installed: `apt-get install wrk gcc util-linux` brings all that the benchmark needs")
    return path
