"""One POST to an address that somebody else has named: over the guarded transport, judged by what came back, told in plain words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from core.chat import WireCall
from core.config import TimeoutSpec
from core.errors import GatewayError, OutboundRefused, ProviderNonsense, ProviderTimeout, ProviderTlsFailed
from core.outbound import GuardedTransport, Response, Transport
from telling import callbacks
from telling.callbacks import Allowed
from telling.outcome import Outcome

MAX_AT_ONCE = 100
_MAX_ANSWER_BYTES = 2**16
_GONE = 410


class Carrier:
    """No redirect is followed. An answer is read only where its sender says what to look for in it."""

    def __init__(self, allow: Allowed, timeout_s: float, wall: Callable[[], float]) -> None:
        self._transports: dict[str, Transport] = {
            scheme: GuardedTransport(guard, max_per_host=MAX_AT_ONCE) for scheme, guard in callbacks.guards(allow).items()
        }
        self._timeouts = TimeoutSpec(connect_s=min(3.0, timeout_s), first_byte_s=timeout_s, idle_s=timeout_s, total_s=timeout_s)
        self.wall = wall

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, refusal: Callable[[bytes], str] | None = None) -> Outcome:
        """`refusal`: from the body of a 2xx to the sentence that says why it was no success, "" where it was. Never raises but for
        cancellation."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            transport = self._transports[urlsplit(url).scheme.lower()]
            response = await transport.open(WireCall(url, {"user-agent": "llmcontrol-webhooks/1", **headers}, body), self._timeouts)
            outcome = await self._judged(response, refusal)
        except GatewayError as error:
            final = isinstance(error, OutboundRefused)
            outcome = Outcome(error=_sentence(error, self._timeouts.total_s), final=final)
        return Outcome(outcome.status_code, outcome.error, outcome.final, outcome.wait_s, loop.time() - began)

    async def _judged(self, response: Response, refusal: Callable[[bytes], str] | None) -> Outcome:
        status, retry_after = response.status, response.headers.get("retry-after", "")
        try:
            if 200 <= status < 300:
                return Outcome(status, refusal(await response.read(_MAX_ANSWER_BYTES)) if refusal else "")
        finally:
            response.close()
        if 300 <= status < 400:
            return Outcome(status, f"It answered {status}, a redirect: these are not followed.")
        wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 9 else 0.0
        return Outcome(status, f"It answered {status}.", final=status == _GONE, wait_s=wait_s)

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.close()


def _sentence(error: GatewayError, timeout_s: float) -> str:
    """The transport speaks of providers."""
    if isinstance(error, OutboundRefused):
        return "Its address may not be called: it must be https at a public address, or be listed in WEBHOOK_ALLOW."
    if isinstance(error, ProviderTimeout):
        return f"No answer within {timeout_s:g} s."
    if isinstance(error, ProviderTlsFailed):
        return "No trusted TLS connection: its certificate is not valid for its name."
    if isinstance(error, ProviderNonsense):
        return "What it answered is not HTTP."
    return "It cannot be reached."
