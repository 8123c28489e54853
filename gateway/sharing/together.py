"""What this process has in common with others: with those of its machine, and by way of Redis with those of other machines."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.sharing.cluster import Cluster
from gateway.sharing.machine_folder import FOLDER_VARIABLE, WORKERS_VARIABLE
from gateway.sharing.machine_peers import MachinePeers
from gateway.sharing.peers import Alone, Peers
from gateway.sharing.redis_address import Address

_log = logging.getLogger(__name__)
# So many values fit at least into what may be laid down.
_PART = 16


class Together:
    """`cluster` is None without Redis. `secret` is the same in every process, `on_machines` is told how many machines serve."""

    def __init__(
        self, redis: Address | None, secret: bytes, max_laid_bytes: int, on_machines: Callable[[int], None], max_cache_bytes: int = 0
    ) -> None:
        """`max_cache_bytes`: of what is laid down under names of the cache, which is apart from the rest."""
        folder = os.environ.get(FOLDER_VARIABLE)
        self._machine = MachinePeers(Path(folder), secret, time.time, max_laid_bytes, max_cache_bytes) if folder else None
        here: Peers = Alone() if self._machine is None else self._machine
        self.peers = here
        self.cluster: Cluster | None = None
        self._redis = None
        if redis is None:
            return
        # Only now: each process pays for what it loads.
        from gateway.sharing.redis_cluster import RedisCluster
        from gateway.sharing.redis_peers import RedisPeers

        machine, process = machine_name(os.environ), secrets.token_hex(8)
        cluster = RedisCluster(redis, machine, process, on_machines)
        peers = RedisPeers(redis, process, secret, here, max_laid_bytes // _PART)
        self.cluster, self.peers = cluster, peers
        self._redis = (cluster, peers)

    async def start(self) -> None:
        """Fails by no lack: a Redis that is away is waited for, and a folder that cannot be used is told in the log."""
        if self._machine is not None:
            try:
                await self._machine.start()
            except OSError as exc:
                _log.error("this worker cannot reach the others of its machine: %s", exc)
        for part in self._redis or ():
            await part.start()

    async def stop(self) -> None:
        """Within a fraction of a second. May come before `start` is done."""
        for part in self._redis or ():
            await part.stop()
        if self._machine is not None:
            await self._machine.stop()


def machine_name(environ: Mapping[str, str]) -> str:
    """The same in all processes that share their limits without Redis: the workers of one supervisor. Others are another machine."""
    own = environ.get(FOLDER_VARIABLE) or (f"supervisor {os.getppid()}" if WORKERS_VARIABLE in environ else secrets.token_hex(8))
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = ""
    return hashlib.blake2b(f"{socket.gethostname()} {boot} {own}".encode(), digest_size=8).hexdigest()
