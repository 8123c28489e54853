"""uvicorn, set up for this product: one process, or several under its supervisor.

Importing this must not read settings: worker processes import it before they set up Django.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import signal
import socket
import threading
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from django.conf import settings
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess

from core.errors import ConfigurationError
from llmcontrol.http_protocol import BoundedConfig, BoundedHttp, Bounds

APPLICATION = "llmcontrol.asgi:application"
BACKLOG = 2048
_M_ARENA_MAX = -8


class ServerConfig(BoundedConfig):
    """A worker of several does not outlive its supervisor: orphaned, it would hold the port for ever."""

    def load(self) -> None:
        super().load()
        parent = multiprocessing.parent_process()
        if parent is not None:
            threading.Thread(target=_end_with, args=(parent.sentinel,), name="watch-parent", daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


class Supervisor(Multiprocess):
    """Replaces a worker that died, and takes its gauges out of the sums: what it was doing is not going on any more."""

    def keep_subprocess_alive(self) -> None:
        before = list(self.processes)
        super().keep_subprocess_alive()
        for process in before:
            if process not in self.processes and process.pid is not None:
                _forget_metrics(process.pid)

    @property
    def failed(self) -> bool:
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)


def bind(host: str, port: int) -> socket.socket:
    """A listening address, claimed before anything else is done. Port 0 = any free one. Raises ConfigurationError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise ConfigurationError(f"--host {host}: {exc.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise ConfigurationError(f"port {port} on {host} cannot be had ({exc.strerror}): choose another with --port") from None
    sock.set_inheritable(True)
    return sock


def url_of(sock: socket.socket) -> str:
    """Where a client on this machine reaches the server."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(sock: socket.socket, workers: int, log_level: str = "INFO") -> int:
    """Serves until SIGINT or SIGTERM, then drains. The exit status: 0, or 3 where the application did not start.

    `log_level` is uvicorn's own; the product's loggers are not changed by it.
    """
    _keep_one_heap()
    config = _config(workers, log_level)
    if workers == 1:
        return _run_alone(uvicorn.Server(config), sock)
    _share_metrics(settings.STATE_DIR / "metrics")
    supervisor = Supervisor(config, sockets=[sock])
    supervisor.run()
    return STARTUP_FAILURE if supervisor.failed else 0


def _config(workers: int, log_level: str) -> ServerConfig:
    config = ServerConfig(
        APPLICATION,
        workers=workers,
        loop="uvloop",
        http=BoundedHttp,
        ws="websockets-sansio",
        ws_max_size=settings.MAX_BODY_BYTES,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=settings.KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.SHUTDOWN_GRACE_S,
        log_config=_logging(log_level),
        access_log=False,
        # What a proxy says about its client is for Django alone, which has a setting of its own for it.
        proxy_headers=False,
        server_header=False,
    )
    config.bounds = Bounds(max_bytes=settings.MAX_HEAD_BYTES, timeout_s=settings.HEAD_TIMEOUT_S, untaken_s=settings.WRITE_TIMEOUT_S)
    return config


def _run_alone(server: uvicorn.Server, sock: socket.socket) -> int:
    def stop(signum: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn puts these handlers back when it is done and raises the signal once more, which would end the process
    # before it has cleaned up. A signal that comes before uvicorn listens for it is not lost either.
    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[sock])
    except SystemExit as exc:  # uvicorn's way to say that the application did not start; it has logged why
        return int(exc.code or 0)
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
    return 0


def _keep_one_heap() -> None:
    """glibc gives each thread a heap of its own, and ours run one at a time anyway: one heap saves 7 MB per process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent outside glibc, and nothing is lost then
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _share_metrics(folder: Path) -> None:
    """Several processes count into files. What earlier processes left there would be counted once more."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _forget_metrics(pid: int) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid, os.environ["PROMETHEUS_MULTIPROC_DIR"])


def _logging(uvicorn_level: str) -> dict[str, Any]:
    """Everything to standard error, which leaves standard output to commands. 4xx answers of the admin are not news."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {"uvicorn": {"level": uvicorn_level}, "django.request": {"level": "ERROR"}},
    }
