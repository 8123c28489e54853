"""Counting tokens: nothing is generated and so nothing is journalled, but the limits of key and team hold, with no tokens taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.config import CallerSpec
from gateway.doors.answer import Headers
from gateway.pipeline import Pipeline


@asynccontextmanager
async def within_limits(pipeline: Pipeline, caller: CallerSpec) -> AsyncIterator[Headers]:
    """Takes one request and a place in flight for the block; gives the `x-ratelimit-*` of then. Raises CallerLimited, ServerBusy."""
    clock = pipeline.clock
    gate, passage = pipeline.manager.gate(caller), pipeline.manager.passage(caller, 0)
    pipeline.enter()
    try:
        if passage is None:
            gate.enter(0, clock.monotonic())
        else:
            await passage.enter()
        try:
            yield (passage or gate).headers(clock.monotonic())
        finally:
            if passage is None:
                gate.leave(0, 0, clock.monotonic())
            else:
                passage.leave(0)
    finally:
        pipeline.leave()
