"""Several serving processes: whoever dies, freezes or is replaced, clients are served."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tests.live import gone_within
from tests.run.serving import Prepared, Served

pytestmark = pytest.mark.process


@contextmanager
def load(served: Served, clients: int = 4) -> Iterator[list[str]]:
    """Clients that ask again and again on kept connections; yields what goes wrong."""
    failures: list[str] = []
    answered = []
    stop = threading.Event()

    def client() -> None:
        connection = served.connect()
        while not stop.is_set():
            try:
                response = served.ask(connection, "quick")
                data = response.read()
            except OSError as exc:
                failures.append(repr(exc))
                connection.close()
                continue
            if response.status != 200 or b"[DONE]" not in data:
                failures.append(f"{response.status} {data[-300:]!r}")
            answered.append(response.status)
            stop.wait(0.01)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(answered) > 20


def test_a_killed_worker_is_replaced_in_seconds(serve: Callable[..., Served]):
    served = serve("--workers", "2")
    before = served.workers()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    served.until(lambda: len(serving(served) - {victim}) == 2)
    assert served.get("/ready") == 200


def test_a_frozen_worker_is_replaced(serve: Callable[..., Served]):
    served = serve("--workers", "2", LLM_WORKER_SILENCE_S="2")
    served.until(lambda: len(serving(served)) == 2)  # one that has not served yet may be silent for longer
    victim = min(served.workers())
    os.kill(victim, signal.SIGSTOP)
    took_s = served.until(lambda: victim not in served.workers() and len(serving(served)) == 2)
    assert took_s > 1
    assert "no sign of life" in served.log.read_text()


def test_a_rolling_restart_refuses_nothing(serve: Callable[..., Served]):
    served = serve("--workers", "2")
    before = served.workers()
    with load(served) as failures, served.stream("slow") as stream:
        served.process.send_signal(signal.SIGHUP)
        rest = stream.read()
        served.until(lambda: not before & served.workers() and len(serving(served)) == 2)
    assert failures == []
    assert b"[DONE]" in rest


def test_a_rolling_restart_takes_settings_from_the_file(serve: Callable[..., Served], prepared: Prepared):
    path = prepared.state_dir / "settings.env"
    original = path.read_text()
    served = serve("--workers", "2")
    before = served.workers()
    try:
        path.write_text(f"{original}LLM_MAX_BODY_BYTES=1024\n")
        served.process.send_signal(signal.SIGHUP)
        served.until(lambda: not before & served.workers() and len(serving(served)) == 2)
        with closing(served.connect()) as connection:
            assert served.ask(connection, "quick", "x" * 2000).status == 413
    finally:
        path.write_text(original)


def test_a_rolling_restart_that_cannot_work_leaves_the_workers(serve: Callable[..., Served], prepared: Prepared):
    path = prepared.state_dir / "settings.env"
    original = path.read_text()
    served = serve("--workers", "2")
    before = served.workers()
    try:
        path.write_text(f"{original}LLM_MAX_BODY_BYTES=many\n")
        served.process.send_signal(signal.SIGHUP)
        served.until(lambda: "the running workers stay" in served.log.read_text())
    finally:
        path.write_text(original)
    assert served.workers() == before
    assert served.get("/ready") == 200
    served.process.terminate()
    assert served.process.wait(60) == 0
    assert gone_within(sorted(before))


def serving(served: Served) -> set[int]:
    """Workers that have told their supervisor that they serve."""
    text = served.log.read_text()
    return {pid for pid in served.workers() if f"worker {pid} serves" in text}
