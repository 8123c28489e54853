"""Many sockets at `/ws` that read all they are sent, in a process of their own: beside the load's clients they would wait for each other.

    python -m tests.faults.event_readers PORT COUNT < keys

The first line of its input is a list of keys, used in turn. It writes `[count]` once all have said hello, and for each further line of
input a line with what each socket has read so far: [[[type, seq], …], …].

Elsewhere they would be on other machines, so they are cheap: bare sockets, which are looked at twenty times a second, and a frame is only
cut out of what has come. What it says is read when somebody asks.
"""

from __future__ import annotations

import base64
import json
import secrets
import select
import socket
import sys
import time

import msgspec

EVERY_S = 0.05
RECEIVE_BYTES = 2**16
SAID_HELLO_WITHIN_S = 120.0
TEXT, CLOSE, PING = 0x81, 0x88, 0x89


class Told(msgspec.Struct):
    type: str
    seq: int


_told = msgspec.json.Decoder(Told)


def cut(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames in it, each as its first byte and what it carries, and the rest."""
    frames, at = [], 0
    while len(data) - at >= 2:
        size, begin = data[at + 1], at + 2
        assert size < 128, "a server masks nothing"
        if size > 125:
            begin += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : begin])
        if len(data) < begin + size:
            break
        frames.append((data[at], data[begin : begin + size]))
        at = begin + size
    return frames, data[at:]


class Socket:
    def __init__(self, port: int, key: str) -> None:
        """Raises AssertionError where it is not let in."""
        self._client = socket.create_connection(("127.0.0.1", port), 60)
        lines = [
            "GET /ws HTTP/1.1",
            f"host: 127.0.0.1:{port}",
            "upgrade: websocket",
            "connection: upgrade",
            f"sec-websocket-key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
            "sec-websocket-version: 13",
            f"authorization: Bearer {key}",
        ]
        self._client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head, self._rest = b"", b""
        while b"\r\n\r\n" not in head:
            more = self._client.recv(RECEIVE_BYTES)
            assert more, head
            head += more
        head, _, self._rest = head.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self._texts: list[bytes] = []
        self.frames: list[tuple[str, int]] = []

    def fileno(self) -> int:
        return self._client.fileno()

    def read(self) -> bool:
        """What has come. False: no more will."""
        more = self._client.recv(RECEIVE_BYTES)
        frames, self._rest = cut(self._rest + more)
        for first, carried in frames:
            if first == PING:
                self._client.sendall(bytes((0x8A, 0x80 | len(carried), 0, 0, 0, 0)) + carried)
            elif first != CLOSE:
                assert first == TEXT, first
                self._texts.append(carried)
        return bool(more)

    def look(self) -> list[tuple[str, int]]:
        """(type, seq) of all that was read."""
        told = map(_told.decode, self._texts)
        self.frames += [(each.type, each.seq) for each in told]
        self._texts.clear()
        return self.frames


class Sockets:
    def __init__(self, port: int, keys: list[str], count: int) -> None:
        self.all = [Socket(port, keys[number % len(keys)]) for number in range(count)]
        self._by_number = {each.fileno(): each for each in self.all}
        self._poll = select.epoll()
        for number in (sys.stdin.fileno(), *self._by_number):
            self._poll.register(number, select.EPOLLIN)

    def read(self) -> bool:
        """Whether somebody asks what was read."""
        asked = False
        for number, _ in self._poll.poll(maxevents=len(self.all) + 1):
            if number == sys.stdin.fileno():
                asked = True
            elif not self._by_number[number].read():
                self._poll.unregister(number)
        time.sleep(EVERY_S)
        return asked


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


def main(port: int, count: int) -> None:
    sockets = Sockets(port, json.loads(sys.stdin.readline()), count)
    by_s = time.monotonic() + SAID_HELLO_WITHIN_S
    while not all(each.look() for each in sockets.all):
        assert time.monotonic() < by_s, "not all have said hello"
        sockets.read()
    say([count])
    while True:
        if sockets.read():
            if not sys.stdin.readline():
                return  # who wanted to know is gone
            say([each.look() for each in sockets.all])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
