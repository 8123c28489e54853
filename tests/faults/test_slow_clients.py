"""F36 and F37: clients that do not read, or do not get their request out, take little and for a while; G27: so do strangers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.client import request
from tests.faults.figures import iso
from tests.faults.history import History, quantile_of
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize, new_row
from tests.faults.processes import until
from tests.faults.raw_clients import Drip, connected, has_ended
from tests.faults.stage import Stage

UNREAD, UNREAD_MB, WRITE_TIMEOUT_S = 50, 100, 5
RECEIVE_BYTES = 4096
HALF_OPEN, HEAD_TIMEOUT_S, SLOW_BODY_S = 500, 10, 10  # a body of a byte a second is slower than LLM_BODY_BYTES_PER_S
WINDOWS, WINDOW_S = 5, 4.0
STRANGERS = 100
HEAD_KB = 31  # just within LLM_MAX_HEAD_BYTES
# A timer is late on a busy machine, and the drip notices an end only when its turn comes, once a second.
LATE_S = 2.0


@pytest.mark.short
@ON_SQLITE
def test_f36_fifty_clients_that_do_not_read(new_stage: Callable[..., Stage], judge: Judge) -> None:
    """They have every slot of the provider, until they are cut."""
    stage = new_stage(env={"LLM_WRITE_TIMEOUT_S": str(WRITE_TIMEOUT_S)})
    provider = stage.provider(max_concurrency=UNREAD)
    huge, well = stage.model(f"fault-huge@mb={UNREAD_MB}", provider=provider), stage.model("ok", provider=provider)
    stage.load(well, LoadSize(UNREAD, 2, 0, 0)).history()  # what a worker needs for fifty readers is no cost of those who do not read
    with stage.rss() as rss:
        clients = [unread(stage, huge) for _ in range(UNREAD)]
        until(lambda: stage.vendor.stats()["in_flight"] == UNREAD, "all fifty are being answered")
        began_s = time.monotonic()
        until(lambda: stage.vendor.stats()["in_flight"] == 0, "all fifty are cut", timeout_s=60)
        cut_s = time.monotonic() - began_s
    # What the kernel holds for a client comes before the end, four kilobytes at a time.
    until(lambda: sum(map(has_ended, clients)) == UNREAD, "every client's connection has ended", timeout_s=60)
    ended = sum(map(has_ended, clients))
    for client in clients:
        client.close()
    history = stage.load(well, LoadSize(UNREAD, 1, 0, 0)).history()
    figures = stage.check(history)
    judge("F36", "RSS (G14)", rss.over_mb, at_most=32, unit="MB")
    # Who took something, be it only into the kernel's buffers, has as long again.
    judge("F36", "all cut", cut_s, at_most=2 * WRITE_TIMEOUT_S + LATE_S, unit="s")
    judge("F36", "connections that were cut", ended, equals=UNREAD)
    judge("F36", "slots not freed", len(history) - len(history.ok), at_most=0, why=figures.explain())


def unread(stage: Stage, alias: str) -> socket.socket:
    """A client that asks for a stream and then never reads."""
    client = connected(stage.machine.port, RECEIVE_BYTES)
    client.send(request(new_row(alias, True), stage.machine.port, stage.key, {}, {}))
    return client


@ON_SQLITE
@pytest.mark.parametrize(
    ("what", "deadline_s"),
    [("heads", HEAD_TIMEOUT_S), ("bodies", SLOW_BODY_S)],
)
def test_f37_five_hundred_half_open_connections(stage: Stage, judge: Judge, what: str, deadline_s: int) -> None:
    """Windows with and without them take turns, so that a busy machine is busy in both."""
    alias = stage.model("ok@tokens=10,delay=0.02")
    with_them, without = History(), History()
    ratios = []
    lives_s: list[float] = []
    for _ in range(WINDOWS):
        usual = stage.load(alias, LoadSize(10, WINDOW_S, 0, 0)).history()
        with Drip(stage.machine.port, firsts(stage, what), b"x", HALF_OPEN) as drip:
            met = stage.load(alias, LoadSize(10, WINDOW_S, 0, 0)).history()
        ratios.append(iso(met, usual))
        with_them, without = with_them + met, without + usual
    with Drip(stage.machine.port, firsts(stage, what), b"x", HALF_OPEN) as drip:
        until(lambda: len(drip.lives_s) >= HALF_OPEN, "every one was ended", timeout_s=deadline_s + 10)
        lives_s = drip.lives_s[:HALF_OPEN]
    figures = stage.check(with_them + without)
    judge("F37", f"ISO, slow {what}", quantile_of(ratios, 0.5), at_most=1.2, unit="×", why=f"{ratios}\n{figures.explain()}")
    judge("F37", f"slow {what} held", max(lives_s), at_most=deadline_s + LATE_S, unit="s", why=str(sorted(lives_s)[-10:]))
    judge("F37", f"failed requests, slow {what}", len(with_them) - len(with_them.ok), at_most=0, why=figures.explain())


def firsts(stage: Stage, what: str) -> list[bytes]:
    """What a half-open connection begins with; then it sends on, a byte a second."""
    if what == "heads":
        return [b"", b"POST /v1/chat/completions HTTP/1.1\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: "]
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stage.key}\r\n"
    return [f"{head}content-length: 100000\r\n\r\n{{".encode(), f"{head}content-length: 100000\r\n\r\n".encode()]


@ON_SQLITE
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/llm/models"])
@pytest.mark.parametrize("told", [True, False], ids=["content-length", "chunked"])
def test_g27_a_stranger_can_fill_little_memory(stage: Stage, judge: Judge, path: str, told: bool) -> None:
    """Each sends as much of a large body as is taken from it, and reads nothing. What an idle connection needs is not counted."""
    framing = f"content-length: {2**22}" if told else "transfer-encoding: chunked"
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{framing}\r\n\r\n".encode()
    stage.load(stage.model("ok"), LoadSize(20, 1, 0, 0)).history()
    for _ in range(STRANGERS):  # what the refusals themselves need once is no cost of a connection
        with connected(stage.machine.port) as client:
            client.send(head)
    clients = [connected(stage.machine.port) for _ in range(STRANGERS)]
    time.sleep(0.5)
    with stage.rss() as rss:
        for client in clients:
            client.send(head)
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            for client in clients:
                pour(client, told)
            time.sleep(0.01)
    for client in clients:
        client.close()
    judge(
        "F37",
        f"memory of a stranger's body (G27), {path}, {'told' if told else 'chunked'}",
        1024 * rss.over_mb / STRANGERS,
        at_most=64,
        unit="KiB",
    )


def pour(client: socket.socket, told: bool) -> None:
    piece = b"x" * 2**13
    try:
        client.send(piece if told else b"%x\r\n%b\r\n" % (len(piece), piece))
    except OSError:
        pass


@ON_SQLITE
def test_g27_a_strangers_head_is_bounded(stage: Stage, judge: Judge) -> None:
    head = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 1000) for n in range(HEAD_KB))
    stage.load(stage.model("ok"), LoadSize(20, 1, 0, 0)).history()
    clients = [connected(stage.machine.port) for _ in range(STRANGERS)]
    time.sleep(0.5)
    with stage.rss() as rss:
        for client in clients:
            client.send(head)
        time.sleep(2)
    assert not any(map(has_ended, clients)), "they were refused: this proves nothing"
    for client in clients:
        client.close()
    judge("F37", "memory of a stranger's head (G27)", 1024 * rss.over_mb / STRANGERS, at_most=64, unit="KiB")
