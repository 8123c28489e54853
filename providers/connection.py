"""Talking to a vendor on an admin's behalf: the connection test, and the list of its models.

Synchronous outside, one event loop for the length of the call inside. Nothing here is metered to a caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from django.conf import settings

from core.clock import Clock, SystemClock
from core.config import ModelSpec, ProviderSpec, TimeoutSpec
from core.errors import ConfigurationError, ProviderRejectedOurKey
from core.outbound import Guard, GuardedTransport, Transport
from core.secrets import Secret
from providers.calls import Calls
from providers.report import ConnectionReport
from providers.trial import Trial

# A dozen short answers of a slow model on a small machine, and as long as an admin waits for a page.
DEADLINE_S = 60.0
CALL_DEADLINE_S = 20.0


def try_out(spec: ProviderSpec, models: Sequence[ModelSpec], clock: Clock = SystemClock()) -> ConnectionReport:  # noqa: B008  (no state)
    """Tries each key, then asks one of `models` for one thing after the other. Takes DEADLINE_S at most, and says what it found so far."""
    report = ConnectionReport()
    asyncio.run(_try_out(_hurried(spec), models, report, clock))
    return report


def list_models(spec: ProviderSpec) -> list[str]:
    """The vendor's model ids, sorted. A refused key is passed over for the next. Raises GatewayError, ConfigurationError."""
    return asyncio.run(_list_with_any_key(_hurried(spec)))


def _hurried(spec: ProviderSpec) -> ProviderSpec:
    """The provider's own timeouts, none beyond what an admin waits for."""
    wanted = spec.timeouts
    return msgspec.structs.replace(
        spec,
        timeouts=TimeoutSpec(
            connect_s=min(wanted.connect_s, CALL_DEADLINE_S),
            first_byte_s=min(wanted.first_byte_s, CALL_DEADLINE_S),
            idle_s=min(wanted.idle_s, CALL_DEADLINE_S),
            total_s=min(wanted.total_s, CALL_DEADLINE_S),
        ),
    )


@asynccontextmanager
async def _transport() -> AsyncIterator[Transport]:
    transport = GuardedTransport(Guard(settings.OUTBOUND_ALLOW), max_connections=4)
    try:
        yield transport
    finally:
        await transport.close()


async def _try_out(spec: ProviderSpec, models: Sequence[ModelSpec], report: ConnectionReport, clock: Clock) -> None:
    async with _transport() as transport:
        try:
            calls = Calls(spec, transport)
        except ConfigurationError as error:
            report.add("adapter", "fail", str(error))
            return
        trial = Trial(spec, calls, report, clock)
        try:
            async with asyncio.timeout(DEADLINE_S):
                missing = await trial.run(models)
        except TimeoutError:
            missing = f"Not tried: the test was stopped after {DEADLINE_S:g} seconds."
            report.stop(f"The test was stopped after {DEADLINE_S:g} seconds, in the middle of this.")
        report.tokens_used = calls.tokens_used
        report.complete(trial.names, missing)


async def _list_with_any_key(spec: ProviderSpec) -> list[str]:
    secrets: list[Secret | None] = [key.secret for key in spec.keys] or [None]
    async with _transport() as transport:
        calls = Calls(spec, transport)
        for secret in secrets[:-1]:
            try:
                return await calls.models(secret)
            except ProviderRejectedOurKey:
                continue
        return await calls.models(secrets[-1])
