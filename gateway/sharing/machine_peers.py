"""The other worker processes of this machine, without a server between them: locks, sockets and files in one folder (mode 0700)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.sharing.machine_claims import Claims
from gateway.sharing.machine_laid import Laid
from gateway.sharing.peers import CACHE_PREFIX, Heard

_log = logging.getLogger(__name__)
# The kernel holds more, but one message should not fill what it holds of many.
_MAX_MESSAGE_BYTES = 60_000
# A kernel may hold as few as ten messages for one process: those that find no room are sent again, so many times.
_ATTEMPTS, _AGAIN_S = 5, 0.01
_DISK_S = 0.05
_READS_PER_TURN = 64
T = TypeVar("T")


class _Message(msgspec.Struct, frozen=True):
    kind: str
    message: dict[str, Any]


class MachinePeers:
    """See `gateway.sharing.peers.Peers`. `start` before anything is claimed or told; `listen` may come before it."""

    def __init__(self, folder: Path, secret: bytes, wall: Callable[[], float], max_laid_bytes: int, max_cache_bytes: int = 0) -> None:
        """`folder` is the one of `machine_folder`; `secret`, the same in every process, seals what is laid down. What can be made again
        at any time, the cache's, has room of its own, so that it takes none from what must last."""
        self._claims = Claims(folder / "claims")
        self._laid = Laid(folder / "laid", secret, wall, max_laid_bytes)
        self._cached = Laid(folder / "cache", secret, wall, max_cache_bytes)
        self._sockets = folder / "sockets"
        self._listeners: dict[str, Heard] = {}
        self._decoder = msgspec.json.Decoder(_Message)
        self._folder_fd = -1
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Raises OSError where the folder is gone or cannot be written."""
        self._claims.open()
        self._laid.open()
        self._cached.open()
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        # An address may be 107 bytes long, a path longer: it is spelled by way of the open folder.
        self._folder_fd = os.open(self._sockets, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder_fd)  # of a process before that had the same id
        self._socket.bind(self._address(self._name))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder_fd)
            os.close(self._folder_fd)
            self._socket = None
        self._claims.close()

    async def claim(self, name: str, ttl_s: float) -> bool:
        return self._claims.claim(name, ttl_s)

    def release(self, name: str) -> None:
        self._claims.release(name)

    def tell(self, kind: str, message: Mapping[str, Any]) -> None:
        data = msgspec.json.encode(_Message(kind, dict(message)))
        if len(data) > _MAX_MESSAGE_BYTES:
            _log.warning("a message of %d bytes about %s is too long for the other workers, and was not sent", len(data), kind)
            return
        try:
            names = os.listdir(self._folder_fd) if self._socket is not None else []
        except OSError as exc:
            _log.warning("the other workers cannot be told about %s: %s", kind, exc)
            return
        for name in names:
            if name != self._name:
                self._send(name, data, _ATTEMPTS)

    def listen(self, kind: str, heard: Heard) -> None:
        self._listeners[kind] = heard

    async def lay(self, name: str, value: bytes, ttl_s: float) -> None:
        await _within(_DISK_S, partial(self._place_of(name).put, name, value, ttl_s))

    async def look(self, name: str) -> bytes | None:
        return await _within(_DISK_S, partial(self._place_of(name).get, name))

    def _place_of(self, name: str) -> Laid:
        return self._cached if name.startswith(CACHE_PREFIX) else self._laid

    @property
    def _name(self) -> str:
        return str(os.getpid())

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._folder_fd}/{name}"

    def _send(self, name: str, data: bytes, attempts: int) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(data, socket.MSG_DONTWAIT, self._address(name))
        except BlockingIOError:
            if attempts > 1:
                asyncio.get_running_loop().call_later(_AGAIN_S, self._send, name, data, attempts - 1)
        except ConnectionRefusedError:  # nobody listens there any more
            with suppress(OSError):
                os.unlink(name, dir_fd=self._folder_fd)
        except OSError as exc:
            if not isinstance(exc, FileNotFoundError):
                _log.warning("worker %s cannot be told anything: %s", name, exc)

    def _read(self) -> None:
        assert self._socket is not None
        for _ in range(_READS_PER_TURN):
            try:
                data = self._socket.recv(2 * _MAX_MESSAGE_BYTES)
            except OSError:
                return
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        try:
            said = self._decoder.decode(data)
        except msgspec.DecodeError as exc:
            _log.warning("another worker sent what is no message: %s", exc)
            return
        heard = self._listeners.get(said.kind)
        if heard is not None:
            try:
                heard(said.message)
            except Exception:
                _log.exception("a message of another worker about %s was not understood", said.kind)


async def _within(seconds: float, work: Callable[[], T]) -> T | None:
    """What `work` gives, done by a thread. None where that fails, or takes longer; not where only the loop was held up meanwhile."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    done, _ = await asyncio.wait({working}, timeout=seconds)
    working.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())
    return working.result() if done and working.exception() is None else None
