"""Makes this server known to Nacos for as long as it serves, over its open API v1, which Nacos 1 and 2 have.

In a thread with an event loop of its own, one for a server however many processes it has: nothing here holds up a start or a request, and
what fails is logged once and tried again. Whether the server takes requests it asks at its own /ready, as a load balancer would: known
when that says yes, weight 0 once it says no (a drain, a database that is away too long), and no longer known at the end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import urlencode, urlsplit

from core.chat import WireCall
from core.config import TimeoutSpec
from core.errors import GatewayError
from core.guard import Guard
from core.outbound import GuardedTransport
from llmcontrol.nacos import Nacos

BEAT_S = 5.0  # Nacos takes an instance for ill after 15 s without one, and forgets it after 30 s
LOOK_S = 0.25
MAX_PAUSE_S = 30.0
_CALL = TimeoutSpec(connect_s=2, first_byte_s=3, idle_s=3, total_s=3)
_ENDS_WITHIN_S = 8.0
_MAX_ANSWER_BYTES = 2**16
_UNKNOWN_INSTANCE = 20404
_REFUSED = (401, 403)
_EVERYWHERE = ("0.0.0.0/0", "::/0")  # nosec B104
_INSTANCE, _BEAT, _LOGIN = "/nacos/v1/ns/instance", "/nacos/v1/ns/instance/beat", "/nacos/v1/auth/login"

_log = logging.getLogger(__name__)


class NacosFailed(Exception):
    """What went wrong, as a plain sentence."""


class Registry:
    """One instance at Nacos. Each method raises NacosFailed where no server does what it is asked."""

    def __init__(self, nacos: Nacos, version: str, transport: GuardedTransport) -> None:
        self._nacos = nacos
        self._servers = list(nacos.servers)
        self._metadata = json.dumps({"version": version, **nacos.metadata})
        self._which = {"serviceName": f"{nacos.group}@@{nacos.service}", "groupName": nacos.group, "ip": nacos.ip, "port": str(nacos.port)}
        self._which |= {"clusterName": nacos.cluster, "ephemeral": "true"}
        self._which |= {"namespaceId": nacos.namespace} if nacos.namespace else {}
        self._transport = transport
        self._admission = ""

    async def register(self, weight: float) -> None:
        """Another weight is told so too: what Nacos 2 is told by PUT outlives the instance, and its successor would have that weight."""
        await self._ask("POST", _INSTANCE, {"weight": f"{weight:g}", "enabled": "true", "healthy": "true", "metadata": self._metadata})

    async def beat(self, weight: float) -> bool:
        """False: Nacos does not know this instance, and is to be told anew."""
        which = self._which
        beat = {"serviceName": which["serviceName"], "ip": which["ip"], "port": int(which["port"]), "cluster": which["clusterName"]}
        beat |= {"weight": weight, "metadata": json.loads(self._metadata), "scheduled": True}
        said = await self._ask("PUT", _BEAT, {"beat": json.dumps(beat)})
        with suppress(ValueError, AttributeError):  # old servers say "ok"
            return bool(json.loads(said).get("code") != _UNKNOWN_INSTANCE)
        return True

    async def leave(self) -> None:
        await self._ask("DELETE", _INSTANCE, {})

    async def _ask(self, method: str, path: str, more: Mapping[str, str]) -> bytes:
        """Of the first server that answers as it should; the next question begins with it."""
        sentences = []
        for server in list(self._servers):
            try:
                said = await self._admitted(server, method, f"{path}?{urlencode({**self._which, **more})}")
            except NacosFailed as failed:
                sentences.append(f"{urlsplit(server).netloc}: {failed}")
                self._servers.append(self._servers.pop(0))
            else:
                return said
        raise NacosFailed(" ".join(sentences))

    async def _admitted(self, server: str, method: str, target: str) -> bytes:
        """Logs in where a name is set: before the first question, and once more where the pass is no longer taken."""
        fresh = bool(self._nacos.username) and not self._admission
        if fresh:
            await self._log_in(server)
        status, said = await self._call(server, method, target)
        if status in _REFUSED and self._nacos.username and not fresh:
            await self._log_in(server)
            status, said = await self._call(server, method, target)
        if status in _REFUSED:
            raise NacosFailed(f"it refuses us ({status}): look at NACOS_USERNAME, NACOS_PASSWORD and what they may in NACOS_NAMESPACE.")
        if status != 200:
            raise NacosFailed(f"it answered {status}.")
        return said

    async def _log_in(self, server: str) -> None:
        self._admission = ""
        form = urlencode({"username": self._nacos.username, "password": self._nacos.password.reveal()})
        status, said = await self._call(server, "POST", _LOGIN, form.encode())
        try:
            self._admission = str(json.loads(said)["accessToken"])
        except (ValueError, KeyError, TypeError):
            raise NacosFailed(f"it does not log us in ({status}): look at NACOS_USERNAME and NACOS_PASSWORD.") from None

    async def _call(self, server: str, method: str, target: str, form: bytes | None = None) -> tuple[int, bytes]:
        headers = {"user-agent": "llmcontrol", **({"authorization": f"Bearer {self._admission}"} if self._admission else {})}
        headers |= {"content-type": "application/x-www-form-urlencoded"} if form is not None else {}
        try:
            response = await self._transport.open(WireCall(server + target, headers, form, method), _CALL)
            try:
                return response.status, await response.read(_MAX_ANSWER_BYTES)
            finally:
                response.close()
        except GatewayError as error:
            raise NacosFailed(f"it cannot be asked ({type(error).__name__}).") from None


class Registrar:
    """Keeps what Nacos knows as it should be. `ready`: whether the server takes requests. Times are of `clock` (seconds)."""

    def __init__(self, registry: Registry, weight: float, ready: Callable[[], Awaitable[bool]], clock: Callable[[], float]) -> None:
        self._registry = registry
        self._weight = weight
        self._ready = ready
        self._clock = clock
        # What Nacos has; None: nothing of us.
        self._told: float | None = None
        self._beat_at = self._again_at = 0.0
        self._failures = 0

    async def step(self) -> None:
        """One look, and what follows from it. Never raises but for cancellation."""
        now = self._clock()
        if now < self._again_at:
            return
        # One of several processes may be ending: the second question meets another.
        ready = await self._ready() or await self._ready()
        try:
            await self._tell(self._weight if ready else 0.0, now)
        except NacosFailed as failed:
            self._failed(str(failed), now)

    async def leave(self) -> None:
        """At the end, whatever went before."""
        if self._told is None:
            return
        try:
            await self._registry.leave()
            _log.info("Nacos was told that this server ends")
        except NacosFailed as failed:
            _log.warning("Nacos could not be told that this server ends; it will notice within 30 s. %s", failed)

    async def _tell(self, weight: float, now: float) -> None:
        if self._told is None:
            if not weight:
                return
            await self._registry.register(weight)
            _log.info("Nacos knows this server, with weight %g", weight)
        elif weight != self._told:
            await self._registry.register(weight)
            _log.info("Nacos gives this server the weight %g", weight)
        elif now < self._beat_at:
            return
        elif not await self._registry.beat(weight):
            _log.warning("Nacos had forgotten this server; it is told anew")
            self._told = None
            return
        self._told, self._beat_at = weight, now + BEAT_S
        if self._failures:
            self._failures = 0
            _log.warning("Nacos can be told again")

    def _failed(self, sentence: str, now: float) -> None:
        if not self._failures:
            _log.warning("Nacos cannot be told of this server; it is tried again, and requests are served meanwhile. %s", sentence)
        self._failures += 1
        self._again_at = now + min(MAX_PAUSE_S, 2.0 ** min(self._failures - 1, 10))


@contextmanager
def announced(nacos: Nacos, version: str, served_at: str) -> Iterator[None]:
    """Known for as long as the block runs. `served_at`: URL of the server, from this machine. `nacos` has ip and port."""
    enough = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(_work(nacos, version, served_at, enough),), name="nacos", daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(_ENDS_WITHIN_S)


async def _work(nacos: Nacos, version: str, served_at: str, enough: threading.Event) -> None:
    # Whoever sets the environment may name any address but those of cloud metadata.
    ports = {urlsplit(url).port for url in (*nacos.servers, served_at)}
    transport = GuardedTransport(Guard([(network, port) for port in ports for network in _EVERYWHERE]), max_connections=4)
    registrar = Registrar(Registry(nacos, version, transport), nacos.weight, partial(_ready, transport, served_at), time.monotonic)
    try:
        while not enough.is_set():
            await registrar.step()
            await asyncio.sleep(LOOK_S)
        await registrar.leave()
    finally:
        await transport.close()


async def _ready(transport: GuardedTransport, served_at: str) -> bool:
    try:
        response = await transport.open(WireCall(f"{served_at}/ready", {"user-agent": "llmcontrol"}, method="GET"), _CALL)
        try:
            await response.read(_MAX_ANSWER_BYTES)
        finally:
            response.close()
    except GatewayError:
        return False
    return response.status == 200
