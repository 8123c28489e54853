"""Several serving processes on one port: who is missing is started, who is frozen is killed, who is outdated is replaced.

A worker says every second, from its event loop, that it turns and whether it is ready. That, and its end, wakes the
supervisor at once, so a killed worker's successor begins to start within milliseconds. All of them accept from one socket,
which stays open as long as the supervisor lives: while one of them serves, nobody is refused.

SIGINT and SIGTERM end everything in good order, a second one ends the waiting; SIGHUP replaces the workers one by one.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, Protocol

import msgspec
from uvicorn.config import STARTUP_FAILURE

_log = logging.getLogger(__name__)
# What a worker says of itself, one byte a time.
STARTING, SERVING, READY, DRAINING = b"", b"s", b"r", b"d"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 0.25
# A worker that served for less has died at once. Each one in a row doubles the wait before the next is started.
_AT_ONCE_S = 1.0
_FIRST_WAIT_S, _MAX_WAIT_S = 0.5, 30.0


class Bounds(msgspec.Struct, frozen=True):
    """Seconds that a worker may take: to start, without a sign of life, and to end once it was told to."""

    start_s: float = 60.0
    silence_s: float = 15.0
    end_s: float = 33.0


class Worker(Protocol):
    """One serving process. `exit_status` as of subprocess: None while it runs, -N where signal N ended it."""

    pid: int

    @property
    def exit_status(self) -> int | None: ...
    def heard(self) -> bytes:
        """What it has said since it was last asked; never waits."""
        ...

    def send_signal(self, sig: int) -> None: ...
    def wakes(self) -> list[Any]:
        """What `multiprocessing.connection.wait` is to wait for."""
        ...


class SpawnedWorker:
    """A fresh interpreter that calls `target(*arguments, tell)`; `tell` takes what the worker says of itself."""

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._pipe, tells = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, Tell(tells)))
        self._process.start()
        tells.close()
        os.set_blocking(self._pipe.fileno(), False)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def exit_status(self) -> int | None:
        return self._process.exitcode

    def heard(self) -> bytes:
        try:
            return os.read(self._pipe.fileno(), 2**12)
        except BlockingIOError:
            return b""

    def send_signal(self, sig: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, sig)

    def wakes(self) -> list[Any]:
        return [self._process.sentinel, self._pipe]


class Tell:
    """The worker's end. A supervisor that does not listen is not waited for."""

    def __init__(self, pipe: connection.Connection) -> None:
        self._pipe = pipe

    def __call__(self, condition: bytes) -> None:
        os.set_blocking(self._pipe.fileno(), False)
        try:
            os.write(self._pipe.fileno(), condition)
        except OSError:  # full, or nobody is left to read: the supervisor's own end is noticed elsewhere
            return


class _Watched(msgspec.Struct, eq=False):
    """A worker and what is known of it; times in seconds of the supervisor's clock."""

    worker: Worker
    heard_s: float
    condition: bytes = STARTING
    serves_since_s: float | None = None
    leaves_since_s: float | None = None
    killed: bool = False


class Supervisor:
    """`step` is all that is decided; `run` calls it whenever something happens, and a few times a second."""

    def __init__(
        self,
        spawn: Callable[[], Worker],
        count: int,
        bounds: Bounds,
        clock: Callable[[], float],
        ended: Callable[[int], None],
        release: Callable[[], None],
    ) -> None:
        """`ended` is told the id of every process that has ended. `release` lets go of the listening socket: once the last
        worker has closed it too, clients are refused at once instead of being left to wait."""
        self._spawn = spawn
        self._count = count
        self._bounds = bounds
        self._clock = clock
        self._ended = ended
        self._release = release
        self._all: list[_Watched] = []
        self._outdated: list[_Watched] = []
        self._stopping = False
        self._served = False
        self._died_at_once = 0
        self._not_before_s = 0.0
        self.status = 0

    def run(self) -> int:
        """Until everything has ended. The exit status: 0, or 3 where no worker ever started."""
        with _signals() as (wakes, taken):
            while self.step():
                connection.wait([wakes, *(each for one in self._all for each in one.worker.wakes())], _LOOK_S)
                for sig in taken():
                    self.obey(sig)
        return self.status

    def obey(self, sig: int) -> None:
        if sig == signal.SIGHUP:
            _log.info("SIGHUP: the workers are replaced one by one")
            self._outdated = self._staying()
        elif not self._stopping:
            self._stop()
        else:
            _log.info("a second signal: what still runs is ended now")
            for one in self._all:
                one.worker.send_signal(signal.SIGQUIT)

    def step(self) -> bool:
        """False once nobody is left and nobody is wanted."""
        now = self._clock()
        for one in self._all:
            self._listen(one, now)
        for one in [each for each in self._all if each.worker.exit_status is not None]:
            self._bury(one, now)
        for one in self._all:
            self._kill_late(one, now)
        if not self._stopping:
            self._retire_outdated(now)
            self._start_missing(now)
        return bool(self._all) or not self._stopping

    def _listen(self, one: _Watched, now: float) -> None:
        said = one.worker.heard()
        if not said:
            return
        one.heard_s, one.condition = now, said[-1:]
        self._served = True
        if one.serves_since_s is None:
            one.serves_since_s = now
            _log.info("worker %d serves", one.worker.pid)
        if one.condition == DRAINING and one.leaves_since_s is None:  # somebody told it to go
            one.leaves_since_s = now

    def _bury(self, one: _Watched, now: float) -> None:
        status = one.worker.exit_status
        assert status is not None
        self._all.remove(one)
        self._ended(one.worker.pid)
        self._outdated = [each for each in self._outdated if each is not one]
        if one.leaves_since_s is not None or self._stopping:
            return
        if one.serves_since_s is None and self._outdated:
            _log.error("worker %d did not start (%s): the running workers stay", one.worker.pid, _cause(status))
            self._outdated = []
        elif not self._served and status > 0:
            _log.error("worker %d did not start (%s): giving up", one.worker.pid, _cause(status))
            self.status = STARTUP_FAILURE
            self._stop()
        else:
            self._replace(one, status, now)

    def _replace(self, one: _Watched, status: int, now: float) -> None:
        at_once = one.serves_since_s is None or now - one.serves_since_s < _AT_ONCE_S
        self._died_at_once = self._died_at_once + 1 if at_once else 0
        # The first is replaced without delay: one may always be killed, whenever it was started.
        wait_s = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2.0 ** (self._died_at_once - 2)) if self._died_at_once > 1 else 0.0
        self._not_before_s = now + wait_s
        _log.error("worker %d ended (%s); the next one starts in %.1f s", one.worker.pid, _cause(status), wait_s)

    def _kill_late(self, one: _Watched, now: float) -> None:
        """Signs of life were taken in just now, so a supervisor that was itself held up does not blame its workers."""
        if one.killed:
            return
        if one.leaves_since_s is not None:
            late = now - one.leaves_since_s > self._bounds.end_s
        else:
            late = now - one.heard_s > (self._bounds.start_s if one.condition == STARTING else self._bounds.silence_s)
        if late:
            _log.error("worker %d has given no sign of life for %.1f s: killed", one.worker.pid, now - one.heard_s)
            one.killed = True
            one.worker.send_signal(signal.SIGKILL)

    def _retire_outdated(self, now: float) -> None:
        """One at a time, and only while as many as are wanted are ready without it. Those that still drain are never more than that."""
        if len(self._all) - len(self._staying()) >= self._count:
            return
        ready = [one for one in self._staying() if one.condition == READY]
        for one in self._outdated:
            if len(ready) - (one in ready) >= self._count:
                self._outdated.remove(one)
                self._send_home(one, now)
                return

    def _start_missing(self, now: float) -> None:
        missing = self._count + bool(self._outdated) - len(self._staying())
        for _ in range(missing if now >= self._not_before_s else 0):
            try:
                self._all.append(_Watched(self._spawn(), now))
            except OSError as exc:  # too many processes or files, or no memory: those that serve go on
                _log.error("no worker can be started (%s); tried again in %.1f s", exc.strerror, _FIRST_WAIT_S)
                self._not_before_s = now + _FIRST_WAIT_S
                return

    def _staying(self) -> list[_Watched]:
        return [one for one in self._all if one.leaves_since_s is None]

    def _stop(self) -> None:
        self._stopping = True
        self._release()
        for one in self._staying():
            self._send_home(one, self._clock())

    def _send_home(self, one: _Watched, now: float) -> None:
        one.leaves_since_s = now
        one.worker.send_signal(signal.SIGTERM)


def _cause(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


@contextmanager
def _signals() -> Iterator[tuple[connection.Connection, Callable[[], bytes]]]:
    """(what becomes readable with a signal, what takes the signals' numbers). Signals are as before afterwards."""
    wakes, wake = multiprocessing.Pipe(duplex=False)
    for end in (wakes, wake):
        os.set_blocking(end.fileno(), False)

    def taken() -> bytes:
        try:
            return os.read(wakes.fileno(), 2**10)
        except BlockingIOError:
            return b""

    caught = [sig for sig in _SIGNALS if signal.getsignal(sig) is not signal.SIG_IGN]  # nohup stays nohup
    before_fd = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    before = {sig: signal.signal(sig, lambda *_: None) for sig in caught}
    try:
        yield wakes, taken
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
        signal.set_wakeup_fd(before_fd)
        wakes.close()
        wake.close()
