"""What the clients saw: one row for each request, with Jepsen's three outcomes."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ERROR_KEYS = {"message", "type", "code", "param"}
STATUSES = frozenset({400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 499, 502, 503, 504, 507})


@dataclass
class Row:
    """Times are wall seconds, to be compared with the vendor's. `unknown`: the connection ended, so nobody can say what happened.

    `reason` is "" or refused, cut, timeout, no-end-mark (a stream that ended well, without saying so), garbage.
    `arrivals`: of a stream, when how much of its text had come: (wall seconds, characters).
    `problems`: what is wrong with the form of an error. `tokens`: words of the answer's text, which is how our vendor makes tokens.
    """

    nonce: str
    alias: str
    stream: bool
    prompt: str
    invoke_t: float = 0.0
    first_t: float | None = None
    end_t: float = 0.0
    outcome: Literal["ok", "fail", "unknown"] = "unknown"
    reason: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    finish_reason: str = ""
    done: bool = False
    usage: dict[str, Any] | None = None
    body: bytes = b""
    error_body: bytes = b""
    error: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()
    abandoned: bool = False
    server_port: int = 0
    local_port: int = 0

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def tokens(self) -> int:
        return len(self.text.split())

    @property
    def echo(self) -> str:
        """What the answer to this very prompt begins with."""
        return "echo:" + hashlib.sha256(self.prompt.encode()).hexdigest()[:8]

    @property
    def echo_ok(self) -> bool:
        return self.text.startswith(self.echo)

    @property
    def swapped(self) -> bool:
        """The answer is one to another prompt."""
        return self.text.startswith("echo:") and not self.echo_ok

    @property
    def latency_s(self) -> float:
        return self.end_t - self.invoke_t

    @property
    def code(self) -> str:
        return str((self.error or {}).get("code") or "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class History(list[Row]):
    """Rows of one load, or of several: they can be added."""

    @property
    def ok(self) -> History:
        return self.where(lambda row: row.outcome == "ok")

    @property
    def failed(self) -> History:
        return self.where(lambda row: row.outcome == "fail")

    @property
    def unknown(self) -> History:
        return self.where(lambda row: row.outcome == "unknown" and not row.abandoned)

    def where(self, wanted: Callable[[Row], bool]) -> History:
        return History(row for row in self if wanted(row))

    def between(self, start: float, end: float) -> History:
        """What was asked from `start` until before `end`, in wall seconds."""
        return self.where(lambda row: start <= row.invoke_t < end)

    def latency_s(self, quantile: float) -> float:
        return quantile_of((row.latency_s for row in self), quantile)

    def statuses(self) -> Counter[str]:
        """How often each kind of end: "200", "502 upstream_error", "unknown cut", …"""
        return Counter(" ".join(filter(None, (str(row.status or row.outcome), row.code, row.reason))) for row in self)

    def __add__(self, other: Iterable[Row]) -> History:  # type: ignore[override]
        return History([*self, *other])


def quantile_of(values: Iterable[float], quantile: float) -> float:
    """The smallest value that so large a share does not exceed; 0 of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(quantile * len(ranked)))] if ranked else 0.0


# Reading answers ----------------------------------------------------------------------------------------------------


def read_whole(row: Row) -> None:
    """Status, headers and body are there: what was it?"""
    if row.status != 200:
        row.outcome, row.error_body = "fail", row.body
        row.error, row.problems = read_error(row.body, row.headers, row.status)
        return
    try:
        answer = json.loads(row.body)
        choice = answer["choices"][0]
        row.text, row.finish_reason = choice["message"]["content"], choice["finish_reason"]
        row.usage = answer.get("usage")
        row.outcome = "ok"
    except (ValueError, LookupError, TypeError):
        row.outcome, row.reason, row.error_body = "fail", "garbage", row.body
        row.problems = ("a 200 without a readable answer",)


def read_event(row: Row, data: bytes) -> None:
    if data == b"[DONE]":
        row.done = True
        if row.error is not None:
            row.problems = (*row.problems, "[DONE] after an error")
        return
    try:
        event = json.loads(data)
        if "error" in event:
            row.error_body = data
            row.error, row.problems = read_error(data, row.headers, None)
            return
        row.usage = event.get("usage") or row.usage
        for choice in event["choices"]:
            row.text += choice["delta"].get("content") or ""
            row.finish_reason = choice.get("finish_reason") or row.finish_reason
        row.arrivals.append((time.time(), len(row.text)))
    except (ValueError, LookupError, TypeError, AttributeError):
        row.problems = (*row.problems, f"an event that cannot be read: {data[:80]!r}")


def end_stream(row: Row) -> None:
    if row.error is not None:
        row.outcome = "fail"
    elif row.done:
        row.outcome = "fail" if row.problems else "ok"
    else:
        row.outcome, row.reason = "unknown", "no-end-mark"


def read_error(body: bytes, headers: Mapping[str, str], status: int | None) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The error, and what is wrong with its form. `status` None: it came as an event of a stream."""
    problems = [] if headers.get("x-request-id") else ["no x-request-id"]
    if status is not None and status not in STATUSES:
        problems.append(f"status {status}")
    try:
        value = json.loads(body)
        error = value["error"]
        if set(value) != {"error"} or set(error) != ERROR_KEYS or not error["message"]:
            problems.append(f"not OpenAI's shape: {body[:200]!r}")
    except (ValueError, LookupError, TypeError):
        return None, (*problems, f"no error body: {body[:200]!r}")
    return error, tuple(problems)


def secrets_in(row: Row, secrets: Iterable[str]) -> Iterator[str]:
    """Those that the answer gives away, shortened."""
    heard = f"{row.headers} {row.text} ".encode() + row.body + row.error_body
    return (secret[:12] + "…" for secret in secrets if secret.encode() in heard)
