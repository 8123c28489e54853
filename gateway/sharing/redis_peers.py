"""`Peers` by way of Redis, for processes of any machine; where Redis is away, by way of the machine's own."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import hiredis
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.sharing.peers import Heard, Peers
from gateway.sharing.redis_address import Address
from gateway.sharing.redis_keeper import Keeper, Sleep
from gateway.sharing.redis_link import TIMEOUT_S, Command, Link
from gateway.sharing.redis_script import PREFIX, RELEASE

_log = logging.getLogger(__name__)
_CHANNEL = f"{PREFIX}news"
_NONCE_BYTES = 12
# More commands than that wait only where Redis has got stuck.
_MAX_WAITING = 1000
# An idle connection that has died makes no sound: who only listens would never know.
_PING_S = 2.0
_AWAY = object()


class _News(msgspec.Struct):
    sender: str
    kind: str
    message: dict[str, Any]


class RedisPeers:
    """`here` is asked where Redis cannot be, and listened to in any case.

    Names are hashed and values sealed (AES-256-GCM) by keys derived from `secret`, the same in every process. A value of more
    than `max_value_bytes` stays on this machine.
    """

    def __init__(
        self, address: Address, process: str, secret: bytes, here: Peers, max_value_bytes: int, sleep: Sleep = asyncio.sleep
    ) -> None:
        keys = HKDF(algorithm=SHA256(), length=64, salt=None, info=b"llmcontrol: values laid down in Redis").derive(secret)
        self._cipher, self._name_key = AESGCM(keys[:32]), keys[32:]
        self._process = process
        self._here = here
        self._max_value_bytes = max_value_bytes
        self._keeper = Keeper(address, self._greet, self._lost, lambda reason: None, self._heard, sleep)
        self._listeners: dict[str, Heard] = {}
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._asked: list[asyncio.Future[Any]] = []
        self._flushing = False
        # The tokens of what was claimed in Redis, which only their owner knows.
        self._claims: dict[str, str] = {}
        self._numbers = itertools.count()
        self._decoder = msgspec.json.Decoder(_News)

    async def start(self) -> None:
        """Tries to reach Redis before it returns, for a second at most."""
        self._loop = asyncio.get_running_loop()
        await self._keeper.start()

    async def stop(self) -> None:
        """Releases what is claimed, where Redis hears it in time."""
        released = [self._release(name, token) for name, token in self._claims.items()]
        if released:
            await asyncio.wait(released, timeout=TIMEOUT_S)
        self._stop_waiting()
        await self._keeper.stop()

    async def claim(self, name: str, ttl_s: float) -> bool:
        """See `Peers`."""
        token, answer = f"{self._process}:{next(self._numbers)}", _AWAY
        try:
            answer = await self._ask("SET", self._key("claim", name), token, "NX", "PX", _ms(ttl_s))
        finally:
            if answer is _AWAY:
                self._release(name, token)  # nobody waits for it any more, and it may yet be done
        if answer is _AWAY:
            return await self._here.claim(name, ttl_s)
        if answer is not None:
            self._claims[name] = token
        return answer is not None

    def release(self, name: str) -> None:
        """See `Peers`."""
        token = self._claims.pop(name, None)
        if token is None:
            self._here.release(name)
        else:
            self._release(name, token)

    def tell(self, kind: str, message: Mapping[str, Any]) -> None:
        """See `Peers`."""
        if self._keeper.link is None:
            self._here.tell(kind, message)
        else:
            self._ask("PUBLISH", _CHANNEL, msgspec.json.encode(_News(self._process, kind, dict(message))))

    def listen(self, kind: str, heard: Heard) -> None:
        """See `Peers`."""
        self._listeners[kind] = heard
        self._here.listen(kind, heard)

    async def lay(self, name: str, value: bytes, ttl_s: float) -> None:
        """See `Peers`."""
        if len(value) > self._max_value_bytes:
            await self._here.lay(name, value, ttl_s)
            return
        key, nonce = self._key("laid", name), os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, value, key.encode())
        if await self._ask("SET", key, sealed, "PX", _ms(ttl_s)) is _AWAY:
            await self._here.lay(name, value, ttl_s)

    async def look(self, name: str) -> bytes | None:
        """See `Peers`. What was laid down while Redis was away is found on its own machine."""
        key = self._key("laid", name)
        sealed = await self._ask("GET", key)
        if sealed is _AWAY or sealed is None:
            return await self._here.look(name)
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key.encode())
        except (InvalidTag, ValueError):
            return None

    def _key(self, what: str, name: str) -> str:
        return f"{PREFIX}{what}:{hashlib.blake2b(name.encode(), digest_size=16, key=self._name_key).hexdigest()}"

    def _release(self, name: str, token: str) -> asyncio.Future[Any]:
        return self._ask("EVAL", RELEASE, 1, self._key("claim", name), token)

    def _ask(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """The answer, or _AWAY; within 50 ms. It need not be awaited."""
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link = self._keeper.link
        if link is None or len(self._waiting) >= _MAX_WAITING:
            asked.set_result(_AWAY)
            return asked
        self._waiting.append((command, asked))
        if link.busy:
            self._loop.call_later(TIMEOUT_S, _answer, asked, _AWAY)
        else:
            self._soon()
        return asked

    def _soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        link = self._keeper.link
        if link is None or link.busy or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        self._asked = [asked for _, asked in waiting]
        link.ask([command for command, _ in waiting], self._answered, self._loop.time() + TIMEOUT_S)

    def _answered(self, answers: Iterable[Any]) -> None:
        asked, self._asked = self._asked, []
        for one, answer in zip(asked, answers, strict=True):
            _answer(one, _AWAY if isinstance(answer, hiredis.ReplyError) else answer)
        self._flush()

    async def _greet(self, link: Link) -> None:
        link.send([("SUBSCRIBE", _CHANNEL)])
        await link.request(("PING",))
        self._loop.call_later(_PING_S, self._look_alive, link)

    def _look_alive(self, link: Link) -> None:
        """For as long as `link` is the one."""
        if self._keeper.link is link:
            self._loop.call_later(_PING_S, self._look_alive, link)
            self._ask("PING")

    def _heard(self, push: list[object]) -> None:
        what, _, data = push if len(push) == 3 else (b"", b"", b"")
        if what != b"message" or not isinstance(data, bytes):
            return
        try:
            news = self._decoder.decode(data)
        except msgspec.DecodeError:
            return  # not ours
        heard = self._listeners.get(news.kind)
        if heard is not None and news.sender != self._process:
            try:
                heard(news.message)
            except Exception:
                _log.exception("a message of another process about %s was not understood", news.kind)

    def _lost(self, reason: str) -> None:
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        asked, self._asked, waiting, self._waiting = self._asked, [], self._waiting, []
        for one in (*asked, *(one for _, one in waiting)):
            _answer(one, _AWAY)


def _answer(asked: asyncio.Future[Any], answer: object) -> None:
    if not asked.done():
        asked.set_result(answer)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
