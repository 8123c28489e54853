"""Clients that no HTTP library would be: many bare sockets that send a little and read nothing, in a thread of their own."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Sequence

Piece = Callable[[], bytes]


def connected(port: int, receive_bytes: int = 0) -> socket.socket:
    """Not blocking. `receive_bytes`: how little the kernel takes in for a client that does not read; 0 = as usual."""
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(5)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


def has_ended(client: socket.socket) -> bool:
    """Whether the server has closed the connection. What it said is read and forgotten."""
    try:
        while client.recv(2**16):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


class Drip:
    """`count` connections that each send `first` and then `piece` once a second, whatever the server says.

    A connection that the server ends is opened again, as somebody would who wants to keep the server busy; `lives_s` is how
    long each of those lasted.
    """

    def __init__(self, port: int, firsts: Sequence[bytes], piece: bytes, count: int) -> None:
        self.lives_s: list[float] = []
        self._port, self._firsts, self._piece, self._count = port, firsts, piece, count
        self._stopped = threading.Event()
        self._open: list[tuple[socket.socket, float]] = []
        self._all_open = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drip", daemon=True)

    def __enter__(self) -> Drip:
        self._thread.start()
        assert self._all_open.wait(20), "the connections could not be opened"
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(20)
        for client, _ in self._open:
            client.close()

    def _run(self) -> None:
        self._open = [self._opened(number) for number in range(self._count)]
        self._all_open.set()
        number, pause_s = 0, 1.0 / self._count
        while not self._stopped.wait(pause_s):
            self._open[number] = self._dripped(number)
            number = (number + 1) % self._count

    def _opened(self, number: int) -> tuple[socket.socket, float]:
        client = connected(self._port)
        client.send(self._firsts[number % len(self._firsts)])
        return client, time.monotonic()

    def _dripped(self, number: int) -> tuple[socket.socket, float]:
        client, began_s = self._open[number]
        if not has_ended(client):
            try:
                client.send(self._piece)
                return client, began_s
            except OSError as exc:
                if exc.errno == errno.EAGAIN:
                    return client, began_s
        self.lives_s.append(time.monotonic() - began_s)
        client.close()
        return self._opened(number)
