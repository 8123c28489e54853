"""uvicorn, set up for this product: one process, or several under a supervisor.

Importing this must not read settings: worker processes import it before they set up Django.
"""

from __future__ import annotations

import ctypes
import ipaddress
import logging.config
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import msgspec
from django.conf import settings

from core.errors import ConfigurationError
from gateway.sharing.machine_folder import shared_folder
from llmcontrol import VERSION
from llmcontrol import http_protocol as protocol
from llmcontrol.connection_limit import ConnectionLimit
from llmcontrol.draining import DrainingServer
from llmcontrol.http_protocol import BoundedConfig, BoundedHttp
from llmcontrol.nacos import Nacos
from llmcontrol.supervisor import Bounds, SpawnedWorker, Supervisor
from llmcontrol.ws_protocol import DrainingSocket

APPLICATION = "llmcontrol.asgi:application"
BACKLOG = 2048
_M_ARENA_MAX = -8
_OPEN_FILES = 65_536
# Beyond delay and grace: what is cut gets a second to say so, the journal is drained once more, the interpreter ends.
_END_MARGIN_S = 10.0


def bind(host: str, port: int) -> socket.socket:
    """A listening address, claimed before anything else is done. Port 0 = any free one. Raises ConfigurationError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise ConfigurationError(f"--host {host}: {exc.strerror}") from None
    if settings.DEBUG and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        sock.close()
        raise ConfigurationError(f"DEBUG is on, and debug pages show code and settings to whoever reaches {host}: set DEBUG=false")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise ConfigurationError(f"port {port} on {host} cannot be had ({exc.strerror}): choose another with --port") from None
    sock.set_inheritable(True)
    return sock


def _listen(sock: socket.socket) -> None:
    """Raises ConfigurationError: whoever binds the same address at the same time learns only here who was first."""
    try:
        sock.listen(BACKLOG)
    except OSError as exc:
        raise ConfigurationError(f"{url_of(sock)} cannot be had ({exc.strerror}): choose another port with --port") from None


def url_of(sock: socket.socket) -> str:
    """Where a client on this machine reaches the server."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # nosec B104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(sock: socket.socket, workers: int, log_level: str = "INFO") -> int:
    """Serves until SIGINT or SIGTERM, then drains. The exit status: 0, or 3 where the application did not start.
    Raises ConfigurationError where somebody else was first at the address.

    `log_level` is uvicorn's own; the product's loggers are not changed by it.
    """
    prepare_process()
    _listen(sock)
    with _announced(sock):
        return _run_alone(_server(log_level, None), sock) if workers == 1 else _run_many(sock, workers, log_level)


def _run_many(sock: socket.socket, workers: int, log_level: str) -> int:
    logging.config.dictConfig(logging_of(log_level))
    grace_s = settings.DRAIN_DELAY_S + settings.SHUTDOWN_GRACE_S
    bounds = Bounds(silence_s=settings.WORKER_SILENCE_S, end_s=grace_s + _END_MARGIN_S)
    for name in settings.READ_FROM_FILE:  # each worker reads the file for itself, and so as it is by then
        os.environ.pop(name, None)
    spawn = partial(SpawnedWorker, _work, (sock, log_level))
    with shared_folder(settings.STATE_DIR, workers, settings.SHARED_LIMITS_BYTES) as folder:
        _share_metrics((folder or settings.STATE_DIR) / "metrics")
        return Supervisor(spawn, workers, bounds, time.monotonic, _forget_metrics, sock.close).run()


def _announced(sock: socket.socket) -> AbstractContextManager[None]:
    """Raises ConfigurationError."""
    nacos: Nacos | None = settings.NACOS
    if nacos is None:
        return nullcontext()
    from llmcontrol import registration  # a supervisor needs nothing else of what it imports

    host, port = sock.getsockname()[:2]
    if not nacos.ip and ipaddress.ip_address(host).is_unspecified:
        raise ConfigurationError(
            f"NACOS_INSTANCE_IP is not set, and {host} is every address: write the one at which others reach this server"
        )
    nacos = msgspec.structs.replace(nacos, ip=nacos.ip or host, port=nacos.port or port)
    return registration.announced(nacos, VERSION, url_of(sock))


def _work(sock: socket.socket, log_level: str, tell: Callable[[bytes], None]) -> None:
    """A worker's whole life. It reads settings anew, and does not outlive its supervisor: orphaned, it would hold the port for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), name="watch-parent", daemon=True).start()
    sys.exit(_run_alone(_server(log_level, tell), sock))


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _server(log_level: str, tell: Callable[[bytes], None] | None) -> DrainingServer:
    config = config_of(APPLICATION, log_level)
    return DrainingServer(config, lambda: config.loaded_app, delay_s=settings.DRAIN_DELAY_S, grace_s=settings.SHUTDOWN_GRACE_S, tell=tell)


def config_of(application: Any, log_level: str, ws: Any = DrainingSocket, lifespan: Literal["on", "off"] = "on") -> BoundedConfig:
    config = BoundedConfig(
        application,
        loop="uvloop",
        http=BoundedHttp,
        ws=ws,
        ws_max_size=settings.MAX_BODY_BYTES,
        lifespan=lifespan,
        backlog=BACKLOG,
        timeout_keep_alive=settings.KEEP_ALIVE_S,
        log_config=logging_of(log_level),
        access_log=False,
        # What a proxy says about its client is for Django alone, which has a setting of its own for it.
        proxy_headers=False,
        server_header=False,
    )
    config.bounds = protocol.Bounds(
        max_bytes=settings.MAX_HEAD_BYTES, timeout_s=settings.HEAD_TIMEOUT_S, untaken_s=settings.WRITE_TIMEOUT_S
    )
    config.connections = ConnectionLimit(settings.MAX_CONNECTIONS_PER_ADDRESS, settings.MAX_CONNECTIONS, settings.TRUSTED_PROXIES)
    return config


def _run_alone(server: DrainingServer, sock: socket.socket) -> int:
    def stop(signum: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # A signal that comes before uvicorn listens for it is not lost.
    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[sock])
    except SystemExit as exc:  # uvicorn's way to say that the application did not start; it has logged why
        return int(exc.code or 0)
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
    return 0


def _raise_open_files() -> None:
    """Each connection is an open file, and so is the one to its vendor: the usual 1024 would be the real limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def prepare_process() -> None:
    """What every process that calls vendors needs, whether it serves or not."""
    _keep_one_heap()
    _raise_open_files()


def _keep_one_heap() -> None:
    """glibc gives each thread a heap of its own, and ours run one at a time anyway: one heap saves 7 MB per process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent outside glibc, and nothing is lost then
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _share_metrics(folder: Path) -> None:
    """Several processes count into files that they map into their memory. Whoever touches a new page of such a file on a full
    disk is killed, so they lie in memory where there is room. What earlier processes left there would be counted once more."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _forget_metrics(pid: int) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid, os.environ["PROMETHEUS_MULTIPROC_DIR"])


def logging_of(uvicorn_level: str) -> dict[str, Any]:
    """Everything to standard error, which leaves standard output to commands. 4xx answers of the admin are not news, nor is each job of
    procrastinate; what is wrong with that `tasks.jobs` says."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            "uvicorn": {"level": uvicorn_level},
            "django.request": {"level": "ERROR"},
            "procrastinate": {"level": "CRITICAL"},
        },
    }
